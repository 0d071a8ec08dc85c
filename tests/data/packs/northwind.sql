-- What the shipped pack `northwind` must make of its tables, said in SQL: entity, external id, fields.
WITH code (country, code) AS (VALUES ('argentina', 'AR'), ('australia', 'AU'), ('austria', 'AT'), ('belgium', 'BE'),
    ('brazil', 'BR'), ('canada', 'CA'), ('denmark', 'DK'), ('finland', 'FI'), ('france', 'FR'), ('germany', 'DE'),
    ('ireland', 'IE'), ('italy', 'IT'), ('japan', 'JP'), ('mexico', 'MX'), ('netherlands', 'NL'), ('norway', 'NO'),
    ('poland', 'PL'), ('portugal', 'PT'), ('singapore', 'SG'), ('spain', 'ES'), ('sweden', 'SE'), ('switzerland', 'CH'),
    ('uk', 'GB'), ('usa', 'US'), ('venezuela', 'VE'))
SELECT 'account', 'cust-' || btrim(c."CustomerID"), jsonb_build_object(
    'name', btrim(c."CompanyName"), 'kind', 'customer', 'phone', c."Phone", 'fax', c."Fax",
    'country', (SELECT code FROM code WHERE code.country = lower(btrim(c."Country"))),
    'address', jsonb_build_object('street', c."Address", 'city', c."City", 'region', c."Region",
        'postal_code', c."PostalCode", 'country', c."Country"))::text
  FROM northwind."Customers" c
UNION ALL
SELECT 'account', 'supp-' || s."SupplierID", jsonb_build_object(
    'name', btrim(s."CompanyName"), 'kind', 'supplier', 'phone', s."Phone", 'fax', s."Fax",
    'country', (SELECT code FROM code WHERE code.country = lower(btrim(s."Country"))),
    'website', CASE WHEN split_part(s."HomePage", '#', 2) LIKE 'http%' THEN split_part(s."HomePage", '#', 2) END,
    'address', jsonb_build_object('street', s."Address", 'city', s."City", 'region', s."Region",
        'postal_code', s."PostalCode", 'country', s."Country"))::text
  FROM northwind."Suppliers" s
UNION ALL
SELECT 'contact', 'cust-' || btrim("CustomerID"), jsonb_build_object(
    'full_name', n.name, 'first_name', split_part(n.name, ' ', 1), 'last_name', coalesce(substring(n.name, '[ ](.*)$'), n.name),
    'title', "ContactTitle", 'phone', "Phone",
    'account', jsonb_build_object('external_id', 'cust-' || btrim("CustomerID")))::text
  FROM northwind."Customers", btrim("ContactName") AS n (name) WHERE n.name <> ''
UNION ALL
SELECT 'employee', e."EmployeeID"::text, jsonb_build_object(
    'full_name', btrim(concat_ws(' ', e."TitleOfCourtesy", e."FirstName", e."LastName")), 'first_name', e."FirstName",
    'last_name', e."LastName", 'title', e."Title", 'birth_date', to_char(e."BirthDate", 'YYYY-MM-DD'),
    'hired_on', to_char(e."HireDate", 'YYYY-MM-DD'), 'city', e."City", 'phone', e."HomePhone", 'extension', e."Extension",
    'country', (SELECT code FROM code WHERE code.country = lower(btrim(e."Country"))),
    'address', jsonb_build_object('street', e."Address", 'city', e."City", 'region', e."Region",
        'postal_code', e."PostalCode", 'country', e."Country"),
    'manager', CASE WHEN e."ReportsTo" IS NOT NULL THEN jsonb_build_object('external_id', e."ReportsTo"::text) END,
    'territories', (SELECT coalesce(jsonb_agg(btrim(t."TerritoryDescription")
            ORDER BY t."TerritoryDescription" COLLATE "C", t."TerritoryID" COLLATE "C"), '[]')
        FROM northwind."EmployeeTerritories" et JOIN northwind."Territories" t USING ("TerritoryID")
        WHERE et."EmployeeID" = e."EmployeeID"))::text
  FROM northwind."Employees" e
UNION ALL
SELECT 'territory', btrim(t."TerritoryID"), jsonb_build_object(
    'name', btrim(t."TerritoryDescription"), 'region', btrim(r."RegionDescription"))::text
  FROM northwind."Territories" t LEFT JOIN northwind."Region" r USING ("RegionID")
UNION ALL
SELECT 'category', "CategoryID"::text, jsonb_build_object(
    'name', btrim("CategoryName"), 'description', "Description")::text
  FROM northwind."Categories"
UNION ALL
SELECT 'shipper', "ShipperID"::text, jsonb_build_object('name', btrim("CompanyName"), 'phone', "Phone")::text
  FROM northwind."Shippers"
UNION ALL
SELECT 'product', p."ProductID"::text, jsonb_build_object(
    'name', btrim(p."ProductName"), 'quantity_per_unit', p."QuantityPerUnit", 'unit_price', round(p."UnitPrice", 2),
    'units_in_stock', coalesce(p."UnitsInStock", 0), 'units_on_order', coalesce(p."UnitsOnOrder", 0),
    'reorder_level', p."ReorderLevel", 'discontinued', p."Discontinued", 'category_name', btrim(c."CategoryName"),
    'category', CASE WHEN p."CategoryID" IS NOT NULL THEN jsonb_build_object('external_id', p."CategoryID"::text) END,
    'supplier', CASE WHEN p."SupplierID" IS NOT NULL THEN jsonb_build_object('external_id', 'supp-' || p."SupplierID") END)::text
  FROM northwind."Products" p LEFT JOIN northwind."Categories" c USING ("CategoryID")
UNION ALL
SELECT 'order', o."OrderID"::text, jsonb_build_object(
    'number', 'NW-' || lpad(o."OrderID"::text, 6, '0'), 'ordered_on', to_char(o."OrderDate", 'YYYY-MM-DD'),
    'required_on', to_char(o."RequiredDate", 'YYYY-MM-DD'), 'shipped_on', to_char(o."ShippedDate", 'YYYY-MM-DD'),
    'status', CASE WHEN o."ShippedDate" IS NULL THEN 'open' ELSE 'shipped' END, 'freight', round(o."Freight", 2),
    'currency', 'USD', 'carrier', btrim(sh."CompanyName"),
    'shipper', CASE WHEN o."ShipVia" IS NOT NULL THEN jsonb_build_object('external_id', o."ShipVia"::text) END,
    'account', CASE WHEN o."CustomerID" IS NOT NULL
        THEN jsonb_build_object('external_id', 'cust-' || btrim(o."CustomerID")) END,
    'employee', CASE WHEN o."EmployeeID" IS NOT NULL THEN jsonb_build_object('external_id', o."EmployeeID"::text) END,
    'ship_to', jsonb_build_object('name', o."ShipName", 'street', o."ShipAddress", 'city', o."ShipCity",
        'region', o."ShipRegion", 'postal_code', o."ShipPostalCode", 'country', o."ShipCountry"),
    'total', i.total, 'items', i.items)::text
  FROM northwind."Orders" o LEFT JOIN northwind."Shippers" sh ON sh."ShipperID" = o."ShipVia"
  CROSS JOIN LATERAL (
    SELECT coalesce(sum(a.amount), 0) AS total, coalesce(jsonb_agg(jsonb_build_object(
            'product', jsonb_build_object('external_id', d."ProductID"::text), 'sku', btrim(p."ProductName"),
            'quantity', d."Quantity", 'unit_price', round(d."UnitPrice", 2), 'discount', d."Discount"::numeric,
            'amount', a.amount) ORDER BY d."ProductID"), '[]') AS items
      FROM northwind."Order Details" d LEFT JOIN northwind."Products" p USING ("ProductID"),
        round(d."UnitPrice" * d."Quantity" * (1 - d."Discount"::numeric), 2) AS a (amount)
     WHERE d."OrderID" = o."OrderID") i
