-- What the tests add to Northwind: a counter in each row that grows with every change of a mapped column, an account of
-- every state each record ever had (kept by triggers, never published), and foreign keys that follow a changed key.
CREATE SCHEMA judge;
CREATE SEQUENCE judge.rev;
CREATE TABLE judge.states (rev bigint, source text, key text, present boolean);

DO $$ DECLARE c record; BEGIN
  FOR c IN SELECT conrelid::regclass::text AS tab, conname, pg_get_constraintdef(oid) AS def
           FROM pg_constraint WHERE contype = 'f' AND connamespace = 'northwind'::regnamespace
  LOOP
    EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I, ADD CONSTRAINT %I %s ON UPDATE CASCADE', c.tab, c.conname, c.conname, c.def);
  END LOOP;
END $$;
-- An employee's boss exists.
ALTER TABLE northwind."Employees" ADD FOREIGN KEY ("ReportsTo") REFERENCES northwind."Employees" ON UPDATE CASCADE;
ALTER TABLE northwind."Employees" ALTER "Photo" SET STORAGE EXTERNAL, ALTER "Notes" SET STORAGE EXTERNAL;

-- The arguments are columns that no rule maps: a change of those alone changes nothing for the CRM.
CREATE FUNCTION judge.count_up() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE unmapped text[] := TG_ARGV;
BEGIN
  IF TG_OP = 'INSERT' OR (to_jsonb(NEW) - unmapped) IS DISTINCT FROM (to_jsonb(OLD) - unmapped) THEN
    NEW.rev := nextval('judge.rev');
  END IF;
  RETURN NEW;
END $$;

-- The key of a row as it appears in external ids.
CREATE FUNCTION judge.key_of(source text, r jsonb) RETURNS text LANGUAGE sql AS $$
  SELECT CASE source
    WHEN 'Customers' THEN 'cust-' || (r->>'CustomerID')
    WHEN 'Suppliers' THEN 'supp-' || (r->>'SupplierID')
    WHEN 'Employees' THEN r->>'EmployeeID'
    WHEN 'Products' THEN r->>'ProductID'
    WHEN 'Orders' THEN r->>'OrderID'
    ELSE (r->>'OrderID') || '-' || (r->>'ProductID') END $$;

CREATE FUNCTION judge.note() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE was text; now text;
BEGIN
  IF TG_OP <> 'INSERT' THEN was := judge.key_of(TG_TABLE_NAME, to_jsonb(OLD)); END IF;
  IF TG_OP <> 'DELETE' THEN now := judge.key_of(TG_TABLE_NAME, to_jsonb(NEW)); END IF;
  IF was IS NOT NULL AND was IS DISTINCT FROM now THEN
    INSERT INTO judge.states VALUES (nextval('judge.rev'), TG_TABLE_NAME, was, false);
  END IF;
  IF now IS NOT NULL AND (was IS DISTINCT FROM now OR NEW.rev <> OLD.rev) THEN
    INSERT INTO judge.states VALUES (NEW.rev, TG_TABLE_NAME, now,
      TG_TABLE_NAME <> 'Order Details' OR (to_jsonb(NEW)->>'Quantity')::int < 1000);
  END IF;
  RETURN NULL;
END $$;

DO $$ DECLARE t text; unmapped text; BEGIN
  FOREACH t IN ARRAY ARRAY['Customers', 'Suppliers', 'Employees', 'Products', 'Orders', 'Order Details'] LOOP
    unmapped := CASE t
      WHEN 'Customers' THEN '''rev'', ''Fax''' WHEN 'Suppliers' THEN '''rev'', ''Fax'', ''ContactName'''
      WHEN 'Employees' THEN '''rev'', ''Extension'', ''Title''' WHEN 'Products' THEN '''rev'', ''ReorderLevel'', ''QuantityPerUnit'''
      WHEN 'Orders' THEN '''rev'', ''ShipVia'', ''RequiredDate''' ELSE '''rev''' END;
    EXECUTE format('ALTER TABLE northwind.%I ADD COLUMN rev bigint NOT NULL DEFAULT nextval(''judge.rev'')', t);
    EXECUTE format('INSERT INTO judge.states SELECT rev, %L, judge.key_of(%L, to_jsonb(r)), true FROM northwind.%I r', t, t, t);
    EXECUTE format('CREATE TRIGGER count_up BEFORE INSERT OR UPDATE ON northwind.%I FOR EACH ROW EXECUTE FUNCTION judge.count_up(%s)', t, unmapped);
    EXECUTE format('CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON northwind.%I FOR EACH ROW EXECUTE FUNCTION judge.note()', t);
  END LOOP;
END $$;

CREATE INDEX ON judge.states (source, key);
-- A cascade runs with the rights of the table's owner.
GRANT USAGE ON SCHEMA judge TO PUBLIC;
GRANT ALL ON SEQUENCE judge.rev TO PUBLIC;
GRANT ALL ON judge.states TO PUBLIC;
