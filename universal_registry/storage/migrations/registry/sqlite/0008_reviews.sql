-- Which records are to be reviewed, from the index alone: `peer status` and sessions ask for all of them, and a row of
-- sync_records is a page or a large part of one.
DROP INDEX sync_records_to_review;
CREATE INDEX sync_records_to_review ON sync_records (kind, namespace, name, reviews, held)
WHERE reviews > 0 OR held <> '';
