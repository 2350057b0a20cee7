"""Runtime families: one folder each; none of them knows the pipeline."""

from targets.import_order import keep_import_order

keep_import_order()
