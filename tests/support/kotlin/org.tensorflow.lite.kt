// google-ai-edge/LiteRT, tflite/java/src/main/java/org/tensorflow/lite: Interpreter.java, Tensor.java, DataType.java
package org.tensorflow.lite

import java.nio.ByteBuffer

class Interpreter(
    @Suppress("unused") private val byteBuffer: ByteBuffer,
    @Suppress("unused") private val options: Options,
) : AutoCloseable {
    class Options {
        external fun setNumThreads(numThreads: Int): Options
    }

    external fun getInputTensor(inputIndex: Int): Tensor

    external fun getOutputTensor(outputIndex: Int): Tensor

    external fun run(input: Any, output: Any)

    external override fun close()
}

interface Tensor {
    fun dataType(): DataType

    fun shape(): IntArray
}

enum class DataType { FLOAT32, UINT8 }
