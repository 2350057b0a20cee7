"""`models`: list the zoo with parameters, MACs, published top-1 and where weights come from."""

from __future__ import annotations

from pipeline.models.zoo import ZOO, ZooEntry


def models() -> None:
    from pipeline.report.tables.table import Column, Columns, Table, print_tables
    from pipeline.report.values import Value

    columns: Columns[ZooEntry] = (
        Column("model", lambda entry: entry.name),
        Column("params (M)", lambda entry: f"{entry.params_millions:.2f}"),
        Column("MACs (G)", lambda entry: f"{entry.macs_giga:.1f}"),
        Column("top-1 (%)", lambda entry: f"{entry.top1_percent:.1f}"),
        Column("weights", lambda entry: Value(f"{'demo, ' if entry.demo_file.is_file() else ''}pretrained, none")),
    )
    print_tables([Table.of("Models", columns, ZOO.values())])
    print("\nImageNet-1k at 224 px, as published:")
    for entry in ZOO.values():
        print(f"  {entry.name}: top-1 {entry.top1_source}; MACs {entry.macs_source}")
        print(f"    pretrained: {entry.pretrained_source}")
    print(
        "\ndemo weights are for the ten digits; any other timm model: python main.py quantize NAME --weights pretrained"
    )
