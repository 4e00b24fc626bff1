"""The commands: flags -> config -> call -> report, one file a command. Nothing imports them."""

if __name__ != "tnet.scripts":
    raise ImportError("this folder is tnet.scripts; run its commands as `tnet COMMAND`")
