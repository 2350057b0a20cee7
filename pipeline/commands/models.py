"""`models`: nothing in, the zoo with parameters, MACs, published top-1 and where weights come from out."""

from __future__ import annotations

from pipeline.models.zoo import ZOO


def models() -> None:
    """The models known by name; `quantize` also takes any timm classification model."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in ("model", "params (M)", "MACs (G)", "top-1 (%)"):
        table.add_column(name, justify="left" if name == "model" else "right", no_wrap=True)
    table.add_column("weights", overflow="fold")
    for entry in ZOO.values():
        demo = "demo, " if entry.demo_file.is_file() else ""
        table.add_row(
            entry.name,
            f"{entry.params_millions:.2f}",
            f"{entry.macs_giga:.1f}",
            f"{entry.top1_percent:.1f}",
            f"{demo}pretrained, none",
        )
    console = Console()
    console.print(table)
    print("\nImageNet-1k at 224 px, as published:")
    for entry in ZOO.values():
        print(f"  {entry.name}: top-1 {entry.top1_source}; MACs {entry.macs_source}")
        print(f"    pretrained: {entry.pretrained_source}")
    print(
        "\ndemo weights are for the ten digits; any other timm model: python main.py quantize NAME --weights pretrained"
    )
