-- The excerpt (tests/data/init/chinook.sql) under the names of the editions that the pack is for, with more rows.
DO $$
DECLARE t text; c record;
BEGIN
  FOR c IN SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public' LOOP
    EXECUTE format('ALTER TABLE %I RENAME COLUMN %I TO %I', c.table_name, c.column_name,
      replace(initcap(replace(c.column_name, '_', ' ')), ' ', ''));
  END LOOP;
  FOR t IN SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' LOOP
    EXECUTE format('ALTER TABLE %I RENAME TO %I', t, replace(initcap(replace(t, '_', ' ')), ' ', ''));
  END LOOP;
END $$;
-- Rows that are deleted or moved must tell which records showed them.
ALTER TABLE "InvoiceLine" REPLICA IDENTITY FULL;
ALTER TABLE "Album" REPLICA IDENTITY FULL;
INSERT INTO "Artist" SELECT n, 'Artist ' || n FROM generate_series(1001, 1040) n;
-- Without albums: they may come and go.
INSERT INTO "Artist" SELECT n, 'Soloist ' || n FROM generate_series(2001, 2007) n;
INSERT INTO "Album" SELECT n, 'Album ' || n, 1001 + n % 40 FROM generate_series(1001, 1080) n;
INSERT INTO "Track" ("TrackId", "Name", "AlbumId", "MediaTypeId", "GenreId", "Composer", "Milliseconds", "Bytes", "UnitPrice")
  SELECT n, 'Track ' || n, 1001 + n % 80, (SELECT min("MediaTypeId") FROM "MediaType"),
    (SELECT "GenreId" FROM "Genre" ORDER BY "GenreId" OFFSET n % (SELECT count(*) FROM "Genre") LIMIT 1), NULL, 1000, NULL, 0.99
  FROM generate_series(100001, 100400) n;
INSERT INTO "Customer" ("CustomerId", "FirstName", "LastName", "Country", "Email", "SupportRepId")
  SELECT n, ' First' || n, 'Last' || n || ' ', (ARRAY['Brazil', 'Germany', 'Atlantis', NULL])[1 + n % 4],
    'Someone.' || n || '@Example.COM', 3 + n % 3 FROM generate_series(101, 160) n;
-- Numbers whose form without blanks and brackets is their E.164.
UPDATE "Customer" SET "Phone" = CASE WHEN "CustomerId" % 3 = 0 THEN 'ask' ELSE '+49 (30) 1234' || lpad("CustomerId"::text, 3, '0') END;
INSERT INTO "Invoice" ("InvoiceId", "CustomerId", "InvoiceDate", "BillingCity", "Total")
  SELECT n, 101 + n % 60, '2024-01-01'::timestamp + n * interval '5 hours', 'City ' || n, 0 FROM generate_series(1001, 1300) n;
INSERT INTO "InvoiceLine" SELECT n, 1001 + n % 300, 100001 + n % 400, 0.99, 1 + n % 3 FROM generate_series(100001, 100900) n;
