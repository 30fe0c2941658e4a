"""``python -m pecrs_lib``: the same as ``pecrs``, where scripts are not on the path."""

from pecrs_lib.cli import main

if __name__ == "__main__":
    main()
