/* A small shop in the manner of the sample databases of the year 2000: quoted types, no separators, GO. */
SET NOCOUNT ON
GO
set quoted_identifier on
GO
if exists (select * from sysobjects where id = object_id('dbo.Orders') and sysstat & 0xf = 3)
	drop table "dbo"."Orders"
GO
CREATE TABLE "Customers" (
	"CustomerID" nchar (5) NOT NULL ,
	"CompanyName" nvarchar (40) NOT NULL ,
	CONSTRAINT "PK_Customers" PRIMARY KEY  CLUSTERED
	(
		"CustomerID"
	)
)
GO
 CREATE  INDEX "CompanyName" ON "dbo"."Customers"("CompanyName")
GO
CREATE TABLE "Orders" (
	"OrderID" "int" IDENTITY (1, 1) NOT NULL ,
	"CustomerID" nchar (5) NULL ,
	"OrderDate" "datetime" NULL ,
	"Freight" "money" NULL CONSTRAINT "DF_Orders_Freight" DEFAULT (0),
	CONSTRAINT "PK_Orders" PRIMARY KEY  CLUSTERED ("OrderID"),
	CONSTRAINT "FK_Orders_Customers" FOREIGN KEY ("CustomerID") REFERENCES "dbo"."Customers" ("CustomerID"),
	CONSTRAINT "CK_Date" CHECK (OrderDate < getdate())
)
GO
CREATE TABLE "Order Details" (
	"OrderID" "int" NOT NULL ,
	"ProductID" "int" NOT NULL ,
	"UnitPrice" "money" NOT NULL CONSTRAINT "DF_Price" DEFAULT (0),
	"Quantity" "smallint" NOT NULL CONSTRAINT "DF_Quantity" DEFAULT (1),
	"Discount" "real" NOT NULL CONSTRAINT "DF_Discount" DEFAULT (0)
)
GO
create view "Order Totals" AS
SELECT Orders.OrderID, Customers.CompanyName, Sum(CONVERT(money,("Order Details".UnitPrice*Quantity*(1-Discount)/100))*100) AS Subtotal
FROM 	Customers INNER JOIN
		(Orders INNER JOIN "Order Details" ON Orders.OrderID = "Order Details".OrderID)
	ON Customers.CustomerID = Orders.CustomerID
GROUP BY Orders.OrderID, Customers.CompanyName
--ORDER BY Orders.OrderID
GO
create procedure "Ten Most Expensive" AS
SET ROWCOUNT 10
SELECT * FROM Orders
GO
ALTER TABLE "Orders" NOCHECK CONSTRAINT ALL
go
set identity_insert "Orders" on
go
INSERT "Customers" VALUES('VINET','Vins')
INSERT "Customers" VALUES('TOMSP',N'Spezialitäten')
go
INSERT INTO "Orders" ("OrderID","CustomerID","OrderDate","Freight") VALUES (10248,N'VINET','7/4/1996',32.38)
INSERT INTO "Orders" ("OrderID","CustomerID","OrderDate","Freight") VALUES (10249,N'TOMSP','7/5/1996',11.61)
INSERT INTO "Orders" ("OrderID","CustomerID","OrderDate") VALUES (10250,N'VINET','7/8/1996')
go
set identity_insert "Orders" off
go
ALTER TABLE "Orders" CHECK CONSTRAINT ALL
go
INSERT "Order Details" VALUES(10248,11,14,12,0)
INSERT "Order Details" VALUES(10248,42,9.8,10,0.94)
INSERT "Order Details" VALUES(10249,14,7.5,10,0.0)
go
ALTER TABLE "Order Details"
	ADD CONSTRAINT [PK_Order_Details] PRIMARY KEY  NONCLUSTERED
	(
		[OrderID],
		[ProductID]
	) ON [PRIMARY]
GO
