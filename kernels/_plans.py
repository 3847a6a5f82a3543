"""What calls came down to, kept for equal ones: to check and choose anew takes as long as a small convolution."""

from typing import TypeVar

Plan = TypeVar('Plan')


class Plans(dict):
    """A dictionary that forgets everything when it is full, as it is after very many shapes of maps."""

    _MOST = 4096

    def keep(self, key: tuple, plan: Plan) -> Plan:
        """Keep a plan, and give it back."""
        if len(self) >= self._MOST:
            self.clear()
        self[key] = plan
        return plan
