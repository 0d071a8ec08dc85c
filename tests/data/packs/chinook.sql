-- What the shipped pack `chinook` must make of its tables, said in SQL: entity, external id, fields.
WITH code (country, code) AS (VALUES ('argentina', 'AR'), ('australia', 'AU'), ('austria', 'AT'), ('belgium', 'BE'),
    ('brazil', 'BR'), ('canada', 'CA'), ('chile', 'CL'), ('czech republic', 'CZ'), ('denmark', 'DK'), ('finland', 'FI'),
    ('france', 'FR'), ('germany', 'DE'), ('hungary', 'HU'), ('india', 'IN'), ('ireland', 'IE'), ('italy', 'IT'),
    ('netherlands', 'NL'), ('norway', 'NO'), ('poland', 'PL'), ('portugal', 'PT'), ('spain', 'ES'), ('sweden', 'SE'),
    ('united kingdom', 'GB'), ('usa', 'US'))
SELECT 'account', 'cust-' || c."CustomerId", jsonb_build_object(
    'name', coalesce(nullif(btrim(c."Company"), ''), btrim(c."FirstName") || ' ' || btrim(c."LastName")), 'kind', 'customer',
    -- Without a known country a number stays as it is.
    'phone', CASE WHEN c."Phone" LIKE '+%' AND EXISTS (SELECT FROM code WHERE code.country = lower(c."Country")) THEN '+' || regexp_replace(c."Phone", '[^0-9]', '', 'g') ELSE c."Phone" END,
    'fax', c."Fax", 'country', coalesce((SELECT code FROM code WHERE code.country = lower(c."Country")), c."Country"),
    'address', jsonb_build_object('street', c."Address", 'city', c."City", 'region', c."State",
        'postal_code', c."PostalCode", 'country', c."Country"),
    'owner', CASE WHEN r."EmployeeId" IS NOT NULL THEN jsonb_build_object('external_id', r."EmployeeId"::text) END)::text
  FROM "Customer" c LEFT JOIN "Employee" r ON r."EmployeeId" = c."SupportRepId"
UNION ALL
SELECT 'contact', 'cust-' || "CustomerId", jsonb_build_object(
    'full_name', btrim("FirstName") || ' ' || btrim("LastName"), 'first_name', btrim("FirstName"), 'last_name', btrim("LastName"),
    'email', lower("Email"), 'phone', "Phone", 'account', jsonb_build_object('external_id', 'cust-' || "CustomerId"))::text
  FROM "Customer"
UNION ALL
SELECT 'employee', e."EmployeeId"::text, jsonb_build_object(
    'full_name', btrim(e."FirstName") || ' ' || btrim(e."LastName"), 'first_name', btrim(e."FirstName"),
    'last_name', btrim(e."LastName"), 'title', e."Title", 'birth_date', to_char(e."BirthDate", 'YYYY-MM-DD'),
    'hired_on', to_char(e."HireDate", 'YYYY-MM-DD'), 'phone', e."Phone", 'city', e."City",
    'country', coalesce((SELECT code FROM code WHERE code.country = lower(e."Country")), e."Country"),
    'address', jsonb_build_object('street', e."Address", 'city', e."City", 'region', e."State",
        'postal_code', e."PostalCode", 'country', e."Country"),
    'notes', 'Reports to ' || b."FirstName" || ' ' || b."LastName",
    'manager', CASE WHEN e."ReportsTo" IS NOT NULL THEN jsonb_build_object('external_id', e."ReportsTo"::text) END)::text
  FROM "Employee" e LEFT JOIN "Employee" b ON b."EmployeeId" = e."ReportsTo"
UNION ALL
SELECT 'account', 'artist-' || a."ArtistId", jsonb_build_object('name', btrim(a."Name"), 'kind', 'supplier',
    'notes', (SELECT nullif(count(*) || ' albums', '0 albums') FROM "Album" al WHERE al."ArtistId" = a."ArtistId"))::text
  FROM "Artist" a WHERE btrim(a."Name") <> ''
UNION ALL
SELECT 'category', "GenreId"::text, jsonb_build_object('name', left(btrim("Name"), 60))::text
  FROM "Genre" WHERE btrim("Name") <> ''
UNION ALL
SELECT 'product', t."TrackId"::text, jsonb_build_object(
    'name', left(btrim(t."Name"), 80), 'sku', 'TRK-' || lpad(t."TrackId"::text, 6, '0'),
    'category', CASE WHEN g."Name" IS NOT NULL THEN jsonb_build_object('external_id', g."GenreId"::text) END,
    'category_name', left(btrim(g."Name"), 60),
    'supplier', CASE WHEN ar."ArtistId" IS NOT NULL THEN jsonb_build_object('external_id', 'artist-' || ar."ArtistId") END,
    'quantity_per_unit', left(al."Title", 60), 'unit_price', t."UnitPrice")::text
  FROM "Track" t LEFT JOIN "Genre" g USING ("GenreId") LEFT JOIN "Album" al USING ("AlbumId")
    LEFT JOIN "Artist" ar ON ar."ArtistId" = al."ArtistId"
UNION ALL
SELECT 'order', i."InvoiceId"::text, jsonb_build_object(
    'number', 'INV-' || lpad(i."InvoiceId"::text, 6, '0'), 'account', jsonb_build_object('external_id', 'cust-' || i."CustomerId"),
    'employee', CASE WHEN r."EmployeeId" IS NOT NULL THEN jsonb_build_object('external_id', r."EmployeeId"::text) END,
    'ordered_on', to_char(i."InvoiceDate", 'YYYY-MM-DD'), 'status', 'shipped', 'currency', 'USD',
    'ship_to', jsonb_build_object('name', c."FirstName" || ' ' || c."LastName", 'street', i."BillingAddress",
        'city', i."BillingCity", 'region', i."BillingState", 'postal_code', i."BillingPostalCode", 'country', i."BillingCountry"),
    'total', lines.total, 'items', lines.items)::text
  FROM "Invoice" i LEFT JOIN "Customer" c USING ("CustomerId") LEFT JOIN "Employee" r ON r."EmployeeId" = c."SupportRepId"
  CROSS JOIN LATERAL (
    SELECT coalesce(sum(l."UnitPrice" * l."Quantity"), 0) AS total, coalesce(jsonb_agg(jsonb_build_object(
            'product', jsonb_build_object('external_id', l."TrackId"::text), 'sku', left(btrim(t."Name"), 80),
            'quantity', l."Quantity", 'unit_price', l."UnitPrice", 'amount', l."UnitPrice" * l."Quantity")
            ORDER BY l."InvoiceLineId"), '[]') AS items
      FROM "InvoiceLine" l LEFT JOIN "Track" t USING ("TrackId") WHERE l."InvoiceId" = i."InvoiceId") lines
