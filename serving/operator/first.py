"""Before the first rollout: the first registered version serves, without a comparison.

Its alias and its row of the ledger are set once (`first_champion`), its server is made, and when
that gives the golden answers the first route is published. It refuses to go on while the registry
does not answer: nobody knows then whether something serves already.
"""

from mlplatform.clients.registry import Registry
from mlplatform.contracts import Arm, Route
from mlplatform.contracts.rollout import Version
from mlplatform.errors import DataError
from mlplatform.ledger import Ledger
from serving.operator.registered import Registered
from serving.rollout.first_champion import first_champion
from serving.rollout.ports import Servers
from serving.route import RouteStore


class First:
    """The first champion of one use case.

    Args:
        usecase: Its name.
        registry: Knows the versions.
        registered: What its aliases say.
        ledger: Is told.
        servers: Of the versions.
        routes: Where gateways find the route.
        actor: Who makes it the champion.
    """

    def __init__(
        self,
        usecase: str,
        registry: Registry,
        registered: Registered,
        ledger: Ledger,
        servers: Servers,
        routes: RouteStore,
        actor: str,
    ) -> None:
        self._usecase, self._registry, self._registered = usecase, registry, registered
        self._ledger, self._servers, self._routes = ledger, servers, routes
        self._actor = actor
        self.champion: Version | None = None
        self.routed = False

    def turn(self) -> None:
        """Do what is due, once.

        Raises:
            PlatformError: A service is away; ask again.
        """
        if self.champion is None:
            marked = self._registered.marked
            if marked is None or marked == (None, None):
                return
            self.champion = first_champion(self._registry, self._ledger, self._usecase, self._actor)
        self._servers.ensure((self.champion,))
        server = self._servers.look(self.champion)
        if server.status.state == "ready" and server.served is not None:
            arm = Arm(name="champion", weight=1, url=server.status.url, model=server.served)
            self._route(arm)
            self.routed = True

    def _route(self, arm: Arm) -> None:
        """Publish the route with this one arm, unless it is there."""
        try:
            record = self._routes.read(self._usecase)
        except DataError:
            record = None  # no gateway can follow it
        if record is not None and record.arms == (arm,):
            return
        # A record of an earlier life, without a state: what follows it has a later epoch.
        epoch = 1 if record is None else record.epoch + 1
        self._routes.publish(
            Route(usecase=self._usecase, epoch=epoch, salt=self._usecase, arms=(arm,))
        )
