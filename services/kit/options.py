"""Job options as RELION writes them (text), read as numbers, switches and choices.

A value that does not fit names the job, the option, the value and what would fit.
"""

from collections.abc import Mapping

from services.kit.errors import Misuse


class Options:
    """The options of one job, after substitution.

    Parameters
    ----------
    job
        Name used in messages.
    values
        Option key -> text.
    """

    def __init__(self, job: str, values: Mapping[str, str]):
        self.job, self.values = job, dict(values)

    def _bad(self, key: str, wanted: str) -> Misuse:
        value = self.values.get(key)
        return Misuse(f"option {key} of {self.job} is {value!r}: it must be {wanted}")

    def text(self, key: str, default: str = "") -> str:
        """Return an option as text."""
        return self.values.get(key, default)

    def number(self, key: str, default: float, low: float = -1e30, high: float = 1e30) -> float:
        """Return a number between `low` and `high`; empty means `default`."""
        value = self.values.get(key, "")
        if value == "":
            return default
        try:
            number = float(value)
        except ValueError:
            raise self._bad(key, "a number") from None
        if not low <= number <= high:
            raise self._bad(key, f"between {low:g} and {high:g}")
        return number

    def whole(self, key: str, default: int, low: int = -(2**31), high: int = 2**31) -> int:
        """Return a whole number between `low` and `high`; empty means `default`."""
        number = self.number(key, default, low, high)
        if number != int(number):
            raise self._bad(key, "a whole number")
        return int(number)

    def switch(self, key: str, default: bool) -> bool:
        """Return True for exactly "Yes", as RELION does."""
        value = self.values.get(key, "")
        return default if value == "" else value == "Yes"

    def choice(self, key: str, default: int = 0) -> int:
        """Return the number in brackets that ends a radio option: "No flipping (0)" is 0."""
        value = self.values.get(key, "")
        if value == "":
            return default
        number = value.rpartition("(")[2].rstrip(") ")
        if not number.isdecimal():
            raise self._bad(key, 'a choice that ends with its number, like "No flipping (0)"')
        return int(number)

    def arguments(self, known: Mapping[str, str]) -> dict[str, str]:
        """Return the additional arguments of the job, name -> value.

        Parameters
        ----------
        known
            Those that this job type understands, with their meaning.

        Raises
        ------
        Misuse
            There are others: they would change the result in RELION, and would be lost here.
        """
        words = self.text("other_args").split()
        found: dict[str, str] = {}
        while words:
            name = words.pop(0)
            if name not in known or not words:
                takes = ", ".join(f"{n} {m}" for n, m in known.items()) or "none"
                raise Misuse(
                    f"option other_args of {self.job} holds {name!r}; "
                    f"the native executor takes: {takes}"
                )
            found[name] = words.pop(0)
        return found
