-- What the CRM must hold, said in SQL: entity, external id, fields. Written from the mapping's meaning, without the
-- program's mapping code.
SELECT 'account', 'cust-' || "CustomerID", jsonb_build_object(
    'name', btrim("CompanyName"), 'country', "Country", 'region', coalesce("Region", 'none'), 'phone', "Phone",
    'tier', CASE WHEN "Country" = 'Germany' THEN 'home' ELSE 'abroad' END,
    'address', jsonb_build_object('street', "Address", 'city', "City", 'zip', "PostalCode"), 'rev', rev)::text
  FROM northwind."Customers"
UNION ALL
SELECT 'account', 'supp-' || "SupplierID", jsonb_build_object(
    'name', "CompanyName", 'country', "Country", 'phone', "Phone", 'homepage', "HomePage", 'rev', rev)::text
  FROM northwind."Suppliers"
UNION ALL
SELECT 'contact', 'cust-' || "CustomerID", jsonb_build_object(
    'full_name', "ContactName", 'title', "ContactTitle",
    'account', jsonb_build_object('external_id', 'cust-' || "CustomerID"), 'rev', rev)::text
  FROM northwind."Customers"
UNION ALL
SELECT 'employee', "EmployeeID"::text, jsonb_build_object(
    'last_name', "LastName", 'first_name', "FirstName", 'born', to_char("BirthDate", 'YYYY-MM-DD'),
    'hired', to_char("HireDate", 'YYYY-MM-DD"T"HH24:MI:SS'),
    'photo', translate(encode("Photo", 'base64'), E'\n', ''), 'notes', "Notes",
    'boss', CASE WHEN "ReportsTo" IS NOT NULL THEN jsonb_build_object('external_id', "ReportsTo"::text) END, 'rev', rev)::text
  FROM northwind."Employees"
UNION ALL
SELECT 'product', "ProductID"::text, jsonb_build_object(
    'name', "ProductName", 'price', "UnitPrice"::text, 'in_stock', "UnitsInStock", 'discontinued', "Discontinued",
    'supplier', jsonb_build_object('external_id', 'supp-' || "SupplierID"), 'rev', rev)::text
  FROM northwind."Products"
UNION ALL
SELECT 'order', "OrderID"::text, jsonb_build_object(
    'account', jsonb_build_object('external_id', 'cust-' || "CustomerID"),
    'employee', CASE WHEN "EmployeeID" IS NOT NULL THEN jsonb_build_object('external_id', "EmployeeID"::text) END,
    'ordered_on', to_char("OrderDate", 'YYYY-MM-DD'), 'shipped_at', to_char("ShippedDate", 'YYYY-MM-DD"T"HH24:MI:SS'),
    'freight', "Freight",
    'ship', jsonb_build_object('name', "ShipName", 'city', "ShipCity", 'country', "ShipCountry"), 'rev', rev)::text
  FROM northwind."Orders"
UNION ALL
SELECT 'order_line', "OrderID" || '-' || "ProductID", jsonb_build_object(
    'order', jsonb_build_object('external_id', "OrderID"::text),
    'product', jsonb_build_object('external_id', "ProductID"::text),
    'price', "UnitPrice"::text, 'quantity', "Quantity", 'discount', "Discount",
    'amount', ("UnitPrice" * "Quantity")::text, 'rev', rev)::text
  FROM northwind."Order Details" WHERE "Quantity" < 1000
