// https://developer.android.com/reference/android/content/res/AssetManager, and AssetFileDescriptor beside it.
package android.content.res

import java.io.Closeable
import java.io.FileDescriptor
import java.io.InputStream

class AssetManager {
    external fun open(fileName: String): InputStream

    external fun openFd(fileName: String): AssetFileDescriptor
}

abstract class AssetFileDescriptor : Closeable {
    abstract val fileDescriptor: FileDescriptor
    abstract val startOffset: Long
    abstract val declaredLength: Long
    abstract val length: Long
}
