"""MIL operators, one small function each; `table.OPERATORS` lists them.

A function takes the arithmetic of its rounding model first, and then the operator's inputs by the names that MIL gives
them: tensors as float32, int32, int8, uint8 or bool tensors, everything else as plain Python values. Semantics are
those of coremltools' operator documentation (its "MIL Ops" reference) for the iOS15 to iOS18 operator sets. What the
documentation leaves open raises `Unsupported`: nothing is guessed.
"""
