// https://developer.android.com/reference/org/json/JSONObject, and JSONArray beside it.
package org.json

class JSONObject(@Suppress("unused") private val json: String) {
    external fun getString(name: String): String

    external fun getDouble(name: String): Double

    external fun getJSONArray(name: String): JSONArray

    external fun getJSONObject(name: String): JSONObject
}

class JSONArray {
    external fun length(): Int

    external fun getDouble(index: Int): Double

    external fun getJSONObject(index: Int): JSONObject
}
