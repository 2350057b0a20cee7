// https://developer.android.com/reference/android/graphics/ImageDecoder, with Bitmap and ColorSpace beside it.
package android.graphics

import android.content.res.AssetManager

class ImageDecoder {
    abstract class Source

    class ImageInfo

    fun interface OnHeaderDecodedListener {
        fun onHeaderDecoded(decoder: ImageDecoder, info: ImageInfo, source: Source)
    }

    var allocator: Int
        external get
        external set
    var isUnpremultipliedRequired: Boolean
        external get
        external set

    external fun setTargetColorSpace(colorSpace: ColorSpace?)

    companion object {
        const val ALLOCATOR_SOFTWARE = 1

        @JvmStatic external fun createSource(assets: AssetManager, fileName: String): Source

        @JvmStatic external fun decodeBitmap(src: Source, listener: OnHeaderDecodedListener): Bitmap
    }
}

abstract class Bitmap {
    abstract val width: Int
    abstract val height: Int

    abstract fun getPixels(pixels: IntArray, offset: Int, stride: Int, x: Int, y: Int, width: Int, height: Int)

    abstract fun recycle()
}

abstract class ColorSpace {
    enum class Named { SRGB }

    companion object {
        @JvmStatic external fun get(name: Named): ColorSpace
    }
}
