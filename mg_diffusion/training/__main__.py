"""`python -m mg_diffusion.training {vae,base,adapter,detail,distill} ...`; of several processes, by `accelerate launch`."""

import sys

from .arguments import parse_args
from .disk import WriteError


def main(arguments: list[str] | None = None) -> None:
    args = parse_args(arguments)
    from .report import finish  # what takes time to import comes after what may be refused

    if args.stage == "vae":
        from .vae import run
    elif args.stage == "adapter":
        from .adapter import run
    elif args.stage == "detail":
        from .detail import run
    elif args.stage == "distill":
        from .distill import run
    elif args.text_only:
        from .text import run
    else:
        from .base import run
    try:
        run(args)
        finish(args.output_dir, args.hub_model_id if args.push_to_hub else None)
    except (ValueError, WriteError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
