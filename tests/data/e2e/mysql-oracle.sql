-- What the CRM must hold, said in the SQL of MariaDB and MySQL: entity, external id, fields (tests/it/support/mysql.rs tells
-- what the columns' names mean). Written from the mapping's meaning, without the program's mapping code.
SELECT 'account', concat('cust-', CustomerID), trim(CompanyName) AS `name`, Country AS `country`,
       coalesce(Region, 'none') AS `region`, Phone AS `phone`,
       if(Country COLLATE utf8mb4_bin = 'Germany', 'home', 'abroad') AS `tier`, Address AS `address.street`,
       City AS `address.city`, PostalCode AS `address.zip`, rev AS `rev:number`
  FROM Customers;
SELECT 'account', concat('supp-', SupplierID), CompanyName AS `name`, Country AS `country`, Phone AS `phone`,
       HomePage AS `homepage`, rev AS `rev:number`
  FROM Suppliers;
SELECT 'contact', concat('cust-', CustomerID), ContactName AS `full_name`, ContactTitle AS `title`,
       concat('cust-', CustomerID) AS `account:ref`, rev AS `rev:number`
  FROM Customers;
SELECT 'employee', EmployeeID, LastName AS `last_name`, FirstName AS `first_name`, date_format(BirthDate, '%Y-%m-%d') AS `born`,
       date_format(HireDate, '%Y-%m-%dT%H:%i:%s') AS `hired`, replace(to_base64(Photo), '\n', '') AS `photo`,
       Notes AS `notes`, ReportsTo AS `boss:ref`, rev AS `rev:number`
  FROM Employees;
SELECT 'product', ProductID, ProductName AS `name`, UnitPrice AS `price`, UnitsInStock AS `in_stock:number`,
       Discontinued AS `discontinued:boolean`, concat('supp-', SupplierID) AS `supplier:ref`, rev AS `rev:number`
  FROM Products;
SELECT 'order', OrderID, concat('cust-', CustomerID) AS `account:ref`, EmployeeID AS `employee:ref`,
       date_format(OrderDate, '%Y-%m-%d') AS `ordered_on`, date_format(ShippedDate, '%Y-%m-%dT%H:%i:%s') AS `shipped_at`,
       Freight AS `freight:number`, ShipName AS `ship.name`, ShipCity AS `ship.city`, ShipCountry AS `ship.country`,
       rev AS `rev:number`
  FROM Orders;
SELECT 'order_line', concat(OrderID, '-', ProductID), OrderID AS `order:ref`, ProductID AS `product:ref`,
       UnitPrice AS `price`, Quantity AS `quantity:number`, Discount AS `discount:number`,
       UnitPrice * Quantity AS `amount`, rev AS `rev:number`
  FROM `Order Details` WHERE Quantity < 1000;
