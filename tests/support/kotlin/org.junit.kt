// https://junit.org/junit4/javadoc/latest/org/junit/Assert.html
package org.junit

annotation class Test

object Assert {
    @JvmStatic external fun assertTrue(message: String, condition: Boolean)

    @JvmStatic external fun assertEquals(expected: Any?, actual: Any?)

    @JvmStatic external fun assertEquals(message: String, expected: Any?, actual: Any?)

    @JvmStatic external fun assertEquals(message: String, expected: Long, actual: Long)

    @JvmStatic external fun assertEquals(message: String, expected: Double, actual: Double, delta: Double)
}
