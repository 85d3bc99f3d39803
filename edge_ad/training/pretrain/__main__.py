"""``python -m edge_ad.training.pretrain``: the command ``edge-ad pretrain-points``."""

from edge_ad.cli.pretrain_points import command

if __name__ == "__main__":
    command(prog_name="python -m edge_ad.training.pretrain")
