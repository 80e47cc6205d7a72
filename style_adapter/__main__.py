"""`python -m style_adapter`, and `accelerate launch -m style_adapter`."""

from .cli import main

raise SystemExit(main())
