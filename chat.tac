"""The chat server with its default options: ``twistd -ny chat.tac``."""

from twisted.application.service import Application

from chatsvc.tap import Options, makeService

options = Options()
options.parseOptions([])
application = Application("chat")
makeService(options).setServiceParent(application)
