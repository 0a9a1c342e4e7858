-- Made anew on every connection: views are code, not data, and so never need to be migrated.

-- What collections and versions are filtered by: their tags and aliases as JSON arrays.
CREATE TEMP VIEW tagged_collections AS
SELECT c.*, (SELECT json_group_array(tag) FROM collection_tags WHERE collection = c.id) AS tags FROM collections c;

CREATE TEMP VIEW tagged_versions AS
SELECT
    m.id, m.artifact, m.collection, m.version, a.state, a.digest, a.size, a.description, a.metadata, a.created_at,
    COALESCE(a.updated_at, a.created_at) AS updated_at,
    (SELECT json_group_array(tag) FROM artifact_tags WHERE artifact = a.id) AS tags,
    (SELECT json_group_array(alias) FROM aliases WHERE membership = m.id) AS aliases
FROM memberships m JOIN artifacts a ON a.id = m.artifact;
