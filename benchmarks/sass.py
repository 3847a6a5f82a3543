"""Reads what a compiled kernel is made of: its resources and the mix of instructions in its hot loop.

No GPU is needed; the disassembler comes with Triton.
"""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

# An FMA on fp32 accumulators, scalar or packed. HFMA2 is left out: compilers use it to write constants.
_FMA = re.compile(r'FFMA|FHFMA|DFMA')
_MMA = re.compile(r'HMMA|HGMMA|QGMMA|UTCHMMA')
_INSTRUCTION = re.compile(r'/\*([0-9a-f]+)\*/\s+(?:@!?U?P\w+\s+)?([A-Z]\w*(?:\.\w+)*)\s*([^;]*);')
_RESOURCES = re.compile(r'REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)')


@dataclass(frozen=True)
class Instruction:
    """One line of a disassembly, without its predicate."""

    address: int
    opcode: str
    operands: str

    @property
    def backward_target(self) -> int | None:
        """Address that a branch jumps back to. The jump to itself that ends every kernel is no loop."""
        target = re.search(r'0x([0-9a-f]+)\s*$', self.operands) if self.opcode.split('.')[0] == 'BRA' else None
        address = int(target[1], 16) if target else self.address
        return address if address < self.address else None

    @property
    def load_bytes(self) -> int:
        """Bytes that one thread loads from global memory."""
        if not self.opcode.startswith('LDG'):
            return 0
        width = re.search(r'\.[US]?(8|16|64|128)\b', self.opcode)
        return int(width[1]) // 8 if width else 4


@dataclass(frozen=True)
class Mix:
    """Instructions of a stretch of code."""

    instructions: int
    fma: int
    mma: int
    load_bytes: int

    @property
    def fma_share(self) -> float:
        """Part of the instructions that are FMAs."""
        return self.fma / self.instructions


@dataclass(frozen=True)
class Resources:
    """What a thread takes (registers; bytes of stack and of local memory) and a block (bytes of shared memory)."""

    registers: int
    stack: int
    shared: int
    local: int


def disassemble(cubin: Path) -> str:
    """Print the resources and instructions of a cubin.

    Raises:
        FileNotFoundError: If Triton's NVIDIA tools are missing.
    """
    import triton

    tool = Path(triton.__file__).parent / 'backends/nvidia/bin/cuobjdump'
    if not tool.exists():
        raise FileNotFoundError(f'{tool} is missing; install triton from its wheel, which has the NVIDIA tools')
    return subprocess.run([tool, '-res-usage', '-sass', cubin], check=True, capture_output=True, text=True).stdout


def resources(text: str) -> Resources:
    """Find the resources of the kernel in a disassembly.

    Raises:
        ValueError: If the text is none.
    """
    found = _RESOURCES.search(text)
    if not found:
        raise ValueError('text has no line with REG, STACK, SHARED and LOCAL; take it from `disassemble`')
    return Resources(*map(int, found.groups()))


def instructions(text: str) -> list[Instruction]:
    """List the instructions of a disassembly, up to the end of the code (padding behind it is left out)."""
    code = [Instruction(int(address, 16), *rest) for address, *rest in _INSTRUCTION.findall(text)]
    return [instruction for instruction in code if instruction.opcode != 'NOP']


def innermost_loops(code: list[Instruction]) -> list[list[Instruction]]:
    """Split off the loops that hold no other loop."""
    spans = [(i.backward_target, i.address) for i in code if i.backward_target is not None]
    innermost = [
        (first, last)
        for first, last in spans
        if not any((f, e) != (first, last) and first <= f and e <= last for f, e in spans)
    ]
    return [[i for i in code if first <= i.address <= last] for first, last in innermost]


def mix(code: list[Instruction]) -> Mix:
    """Count a stretch of code."""
    return Mix(
        len(code),
        sum(bool(_FMA.match(i.opcode)) for i in code),
        sum(bool(_MMA.match(i.opcode)) for i in code),
        sum(i.load_bytes for i in code),
    )


def hot_loops(code: list[Instruction]) -> list[Mix]:
    """Count the innermost loops that matter: with more than half the arithmetic of the busiest one.

    A kernel has one for each kind of tile. What compilers split off for the last rounds of an unrolled loop is smaller.
    All of the code counts as one if its loops were unrolled away.
    """
    mixes = [mix(loop) for loop in innermost_loops(code)]
    most = max((m.fma + m.mma for m in mixes), default=0)
    return [m for m in mixes if m.fma + m.mma > most / 2] or [mix(code)]
