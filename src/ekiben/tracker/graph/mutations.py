"""The root of all mutations."""

from ekiben.tracker.graph.artifact_mutations import ArtifactMutations
from ekiben.tracker.graph.base import Context
from ekiben.tracker.graph.collection_mutations import CollectionMutations
from ekiben.tracker.graph.run_mutations import RunMutations
from ekiben.tracker.graph.version_mutations import VersionMutations


class Mutation(RunMutations, ArtifactMutations, VersionMutations, CollectionMutations):
    typename = "Mutation"

    def __init__(self, context: Context) -> None:
        self.context = context
