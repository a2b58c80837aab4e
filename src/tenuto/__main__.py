"""python -m tenuto"""

from tenuto.cli.main import entry

if __name__ == "__main__":
    entry()
