// Runs `prepare` of the exported Picture.kt on the JVM, for a comparison with calibration.preprocess.
package prepared

import java.io.File
import java.nio.ByteBuffer

/**
 * Each argument names a file of lines "PACKAGE WIDTH HEIGHT PIXELS RESULT": the package of a Picture, and the paths of
 * ARGB pixels, four bytes each, highest first, and of what is to be written.
 */
fun main(arguments: Array<String>) {
    for (line in arguments.flatMap { File(it).readLines() }) {
        val (name, width, height, pixels, result) = line.split(" ")
        val argb = IntArray(width.toInt() * height.toInt())
        ByteBuffer.wrap(File(pixels).readBytes()).asIntBuffer().get(argb)
        // By name, because each package is another choice of the same template.
        val picture = Class.forName("$name.Picture")
        val prepare = picture.methods.single { it.name == "prepare" }
        val given = prepare.invoke(picture.getField("INSTANCE").get(null), argb, width.toInt(), height.toInt())
        File(result).writeBytes(given as ByteArray)
    }
}
