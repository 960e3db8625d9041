"""What services have in common that keep a state and publish it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kit.database.transactions import Sessions
from kit.log.publish.relay import Relay
from kit.log.publish.state_topic import StateTopic
from kit.people.subjects.data import SubjectData
from kit.people.subjects.personal_tables import After, PersonalTable
from kit.people.subjects.retention import Retention, expiries
from kit.people.subjects.servicer import SubjectDataServicer
from kit.registry import Background, Registration
from kit.service.parts import Publication, Subscription
from kit.service.resources import Resources
from kit.service.runtime import ServiceRuntime
from kit.settings import Settings


class PublishedState:
    """The state of a service: kept in its database, and published on a topic of the same name.

    Args:
        settings: the role's.
        resources: those of its process.
        service: the name of the service, its database and its topic.
        one_writer: all write transactions take the same lock.
    """

    def __init__(self, settings: Settings, resources: Resources, service: str, *, one_writer: bool = False) -> None:
        self._settings = settings
        self._resources = resources
        self._service = service
        self._database = resources.database(service, one_writer=one_writer)
        self.topic = StateTopic(service, settings.log_partitions)
        self.relay = Relay(self.sessions, resources.log, service, keep=settings.topic_keep)

    @property
    def sessions(self) -> Sessions:
        """The sessions of the database."""
        return self._database.sessions

    def runtime(
        self,
        *,
        rpcs: Sequence[Registration],
        tables: Sequence[PersonalTable],
        after_erasure: Mapping[str, After] | None = None,
        after_expiry: Mapping[str, After] | None = None,
        subscriptions: Sequence[Subscription] = (),
        background: Sequence[Background] = (),
    ) -> ServiceRuntime:
        """The runtime of a role that serves while its database is up, publishes the state, and shows, erases and expires its rows.

        Args:
            rpcs: what it serves.
            tables: which of its tables hold personal data.
            after_erasure: what follows from erased rows, by table.
            after_expiry: what follows from rows that were deleted for their age, by table.
            subscriptions: topics of other services that it follows.
            background: whatever else runs as long as it serves.

        Raises:
            WrongSetting: the settings name a table of this service that does not grow old.
        """
        database, topic = self._database, self.topic
        data = SubjectData(database, self._resources.keys, topic, tables, after_erasure)
        return ServiceRuntime(
            self._settings,
            self._resources,
            self._service,
            checks={"database": database.check},
            database=database,
            rpcs=rpcs,
            subject_data=SubjectDataServicer(data, database, self._resources.log, topic),
            retention=Retention(self._settings, self._service, self.sessions, expiries(tables), topic, after=after_expiry),
            publication=Publication(topic, self.relay),
            subscriptions=subscriptions,
            background=background,
        )
