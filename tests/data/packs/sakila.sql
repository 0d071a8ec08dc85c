-- What the shipped pack `sakila` must make of its tables, said in SQL (tests/it/support/mysql.rs tells what the columns'
-- names mean; judge.initcap() is made by the test).
SELECT 'account', concat('store-', s.store_id), concat('Sakila ', ci.city) AS `name`, 'other' AS `kind`,
       nullif(a.phone, '') AS `phone`, CASE co.country WHEN 'Canada' THEN 'CA' WHEN 'Australia' THEN 'AU' END AS `country`,
       ci.city AS `city`, a.address AS `address.street`, ci.city AS `address.city`, a.district AS `address.region`,
       a.postal_code AS `address.postal_code`, co.country AS `address.country`, s.manager_staff_id AS `owner:ref`
  FROM store s JOIN address a USING (address_id) JOIN city ci USING (city_id) JOIN country co USING (country_id);
SELECT 'employee', s.staff_id, judge.initcap(concat(s.first_name, ' ', s.last_name)) AS `full_name`,
       judge.initcap(s.first_name) AS `first_name`, judge.initcap(s.last_name) AS `last_name`,
       if(s.active, 'active', 'inactive') AS `status`, nullif(a.phone, '') AS `phone`, ci.city AS `city`,
       CASE co.country WHEN 'Canada' THEN 'CA' WHEN 'Australia' THEN 'AU' END AS `country`,
       a.address AS `address.street`, ci.city AS `address.city`, a.district AS `address.region`,
       a.postal_code AS `address.postal_code`, co.country AS `address.country`,
       nullif(shop.manager_staff_id, s.staff_id) AS `manager:ref`
  FROM staff s JOIN address a USING (address_id) JOIN city ci USING (city_id) JOIN country co USING (country_id)
  JOIN store shop ON shop.store_id = s.store_id;
SELECT 'contact', concat('customer-', c.customer_id), concat(upper(left(c.first_name, 1)), lower(substr(c.first_name, 2)), ' ', upper(left(c.last_name, 1)), lower(substr(c.last_name, 2))) AS `full_name`,
       concat(upper(left(c.first_name, 1)), lower(substr(c.first_name, 2))) AS `first_name`, concat(upper(left(c.last_name, 1)), lower(substr(c.last_name, 2))) AS `last_name`, lower(c.email) AS `email`,
       nullif(a.phone, '') AS `phone`, if(c.active, 'active', 'inactive') AS `status`, a.address AS `address.street`,
       ci.city AS `address.city`, a.district AS `address.region`, a.postal_code AS `address.postal_code`,
       co.country AS `address.country`, concat('store-', c.store_id) AS `account:ref`
  FROM customer c JOIN address a USING (address_id) JOIN city ci USING (city_id) JOIN country co USING (country_id);
SELECT 'category', category_id, name AS `name` FROM category;
SELECT 'product', f.film_id, left(judge.initcap(f.title), 80) AS `name`, concat('FILM-', lpad(f.film_id, 4, '0')) AS `sku`,
       f.rental_rate AS `unit_price:number`,
       (SELECT count(*) FROM inventory i WHERE i.film_id = f.film_id) AS `units_in_stock:number`,
       if(exists(SELECT 1 FROM inventory i WHERE i.film_id = f.film_id), 'active', 'discontinued') AS `status`,
       (SELECT min(fc.category_id) FROM film_category fc WHERE fc.film_id = f.film_id) AS `category:ref`,
       (SELECT min(c.name) FROM film_category fc JOIN category c USING (category_id) WHERE fc.film_id = f.film_id) AS `category_name`,
       concat(f.rental_duration, ' days') AS `quantity_per_unit`
  FROM film f;
SELECT 'order', r.rental_id, concat('R-', lpad(r.rental_id, 6, '0')) AS `number`, concat('store-', i.store_id) AS `account:ref`,
       r.staff_id AS `employee:ref`, date_format(r.rental_date, '%Y-%m-%d') AS `ordered_on`,
       date_format(date_add(r.rental_date, INTERVAL f.rental_duration DAY), '%Y-%m-%d') AS `required_on`,
       date_format(r.return_date, '%Y-%m-%d') AS `shipped_on`, if(r.return_date IS NULL, 'open', 'shipped') AS `status`,
       coalesce((SELECT sum(amount) FROM payment p WHERE p.rental_id = r.rental_id), 0) AS `total:number`, 'USD' AS `currency`,
       concat(upper(left(c.first_name, 1)), lower(substr(c.first_name, 2)), ' ', upper(left(c.last_name, 1)), lower(substr(c.last_name, 2))) AS `ship_to.name`,
       coalesce((SELECT concat('[', group_concat(
            json_object('sku', concat('payment ', payment_id), 'quantity', 1, 'amount', amount)
            ORDER BY payment_date, payment_id SEPARATOR ','), ']')
          FROM payment p WHERE p.rental_id = r.rental_id), '[]') AS `items:json`
  FROM rental r JOIN inventory i USING (inventory_id) JOIN film f USING (film_id)
  JOIN customer c ON c.customer_id = r.customer_id;
