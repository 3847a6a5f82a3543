"""What calls came down to, kept for equal ones: to check and choose anew takes as long as a small convolution."""


class Plans(dict):
    """A dictionary that forgets everything when it is full, as it is after very many shapes of maps."""

    _MOST = 4096

    def __setitem__(self, key: tuple, plan: object) -> None:
        if len(self) >= self._MOST:
            self.clear()
        super().__setitem__(key, plan)
