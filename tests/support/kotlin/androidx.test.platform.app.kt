// https://developer.android.com/reference/androidx/test/platform/app/InstrumentationRegistry; what it gives is an
// android.app.Instrumentation.
package androidx.test.platform.app

import android.content.Context

abstract class Instrumentation {
    abstract val context: Context
    abstract val targetContext: Context
}

object InstrumentationRegistry {
    @JvmStatic external fun getInstrumentation(): Instrumentation
}
