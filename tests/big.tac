"""The server with one page more: `/big` is 26 MB, given as fast as they are read."""

from twisted.application.service import Application
from twisted.internet.interfaces import IPushProducer
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from chatsvc.tap import Options, makeService

PIECE = b"0123456789abcdef" * 4096
PIECES = 400


@implementer(IPushProducer)
class Flow:
    """One answer under way."""

    def __init__(self, request):
        self.request, self.left, self.flowing = request, PIECES, False

    def resumeProducing(self):
        """Go on until told to stop."""
        self.flowing = True
        while self.flowing and self.left:
            self.left -= 1
            self.request.write(PIECE)
        if not self.left:
            self.request.unregisterProducer()
            self.request.finish()

    def pauseProducing(self):
        """Wait."""
        self.flowing = False

    def stopProducing(self):
        """The client is gone."""
        self.flowing, self.left = False, -1


class Big(Resource):
    """The page."""

    def render_GET(self, request):
        """Begin."""
        request.setHeader(b"Content-Length", b"%d" % (len(PIECE) * PIECES))
        flow = Flow(request)
        request.registerProducer(flow, streaming=True)
        flow.resumeProducing()
        return NOT_DONE_YET


options = Options()
options.parseOptions(["--port", "0"])
service = makeService(options)
service.factory.site.resource.putChild(b"big", Big())
application = Application("chat")
service.setServiceParent(application)
