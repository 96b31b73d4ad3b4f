"""What every fault may change; each fault changes one thing."""

from tests.testbed.exchange import Reply, Request, Resource


class Fault:
    """Changes the request as the origin sees it, the resource that it serves, or the reply. Here: nothing."""

    def request(self, request: Request) -> Request:
        """The request, as an origin with this fault takes it."""
        return request

    def resource(self, resource: Resource) -> Resource:
        """The file, as an origin with this fault has it."""
        return resource

    def reply(self, request: Request, reply: Reply) -> Reply:
        """The reply, as an origin with this fault gives it."""
        return reply
