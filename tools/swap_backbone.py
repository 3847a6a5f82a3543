"""Put a large-kernel backbone into a config of mmseg, mmdet or mmpretrain.

The result is a small config that inherits the one given, by name if it is a library's own. Necks, heads, strides,
norms, image statistics and the optimiser's options follow the new backbone; data and schedule stay. What cannot work
is refused, with the reason.

    python tools/swap_backbone.py mmseg::upernet/upernet_r50_4xb4-160k_ade20k-512x512.py --backbone slak-tiny
    python tools/swap_backbone.py mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py --backbone shiftwise-small -o dino_sw.py
"""

import argparse
import logging
import re
import sys
from pathlib import Path

from sw_mm.swap import backbone_names, base_name, locate, plan_swap


def file_name(config: str, backbone: str) -> str:
    """Return the name of a config file with another backbone: its second field, or its first in mmpretrain."""
    fields = locate(config).stem.split('_')
    place = 0 if len(fields) < 2 or re.match(r'\d+xb\d+', fields[1]) else 1
    fields[place : place + 1] = [backbone]
    return f'{"_".join(fields)}.py'


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.partition('\n')[0],
        epilog=__doc__.partition('\n\n')[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('config', metavar='CONFIG', help='config file, or the name of one: mmdet::fcos/fcos_….py')
    parser.add_argument('--backbone', required=True, metavar='NAME', help=f'one of {", ".join(backbone_names())}')
    parser.add_argument(
        '-o', '--out', metavar='OUT', type=Path, help='file to write (named after CONFIG, in the working directory)'
    )
    parser.add_argument('--force', action='store_true', help='replace OUT if it is there')
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    try:
        out = args.out or Path(file_name(args.config, args.backbone))
        if out.exists() and not args.force:
            raise FileExistsError(f'{out} exists; choose another name, or pass --force')
        swap = plan_swap(args.config, args.backbone)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(swap.text(base_name(args.config, out.parent)))
    except (OSError, ValueError) as error:
        sys.exit(f'swap_backbone: {error}')
    log = logging.getLogger('sw_mm').info
    log('%s: %s in the place of %s', out, swap.name, swap.old)
    for line in swap.summary():
        log('  %s', line)
    log('Next: mim train %s %s', swap.library, out)


if __name__ == '__main__':
    main()
