"""The web demo: ``python app.py [--model NAME] [--port 7860]``; also the entry point of the Space."""

import sys

from vita.demo.launch import main

if __name__ == "__main__":
    sys.exit(main())
