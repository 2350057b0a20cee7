// What the exported files use of Android: https://developer.android.com/reference/android/content/Context
package android.content

import android.content.res.AssetManager
import java.io.File

abstract class Context {
    abstract val assets: AssetManager
    abstract val codeCacheDir: File
}
