"""The built-in membership attacks: importing one registers it. A new one is one file and one line here."""

from privhier.attacks.membership.lira import LiraAttack as LiraAttack
from privhier.attacks.membership.rmia import RmiaAttack as RmiaAttack
