// pytorch/executorch, extension/android/executorch_android/src/main/java/org/pytorch/executorch: EValue.java, Module
// and Tensor, which are Java files in some releases and Kotlin files in others. Here is what both have.
package org.pytorch.executorch

class Module private constructor() {
    external fun forward(vararg inputs: EValue): Array<EValue>

    external fun execute(methodName: String, vararg inputs: EValue): Array<EValue>

    external fun destroy()

    companion object {
        const val LOAD_MODE_MMAP = 1

        @JvmStatic external fun load(modelPath: String?, loadMode: Int): Module
    }
}

class EValue private constructor() {
    external fun toTensor(): Tensor

    external fun toInt(): Long

    external fun toStr(): String

    companion object {
        @JvmStatic external fun from(tensor: Tensor): EValue
    }
}

abstract class Tensor {
    abstract val dataAsFloatArray: FloatArray

    companion object {
        @JvmStatic external fun fromBlobUnsigned(data: ByteArray, shape: LongArray): Tensor
    }
}
