-- What the CRM must hold, said in SQL (tests/it/support/mysql.rs tells what the columns' names mean).
SELECT 'address', address_id, address AS `street`, district AS `district`, postal_code AS `postal_code`,
       nullif(phone, '') AS `phone`, date_format(last_update, '%Y-%m-%dT%H:%i:%sZ') AS `changed_at`
  FROM address;
SELECT 'customer', concat('customer-', customer_id), concat(first_name, ' ', last_name) AS `full_name`,
       lower(email) AS `email`, active AS `active:boolean`, store_id AS `store:number`,
       date_format(create_date, '%Y-%m-%dT%H:%i:%s') AS `since`, address_id AS `address:ref`
  FROM customer;
SELECT 'staff', staff_id, concat(first_name, ' ', last_name) AS `name`, replace(to_base64(picture), '\n', '') AS `picture`,
       active AS `active:boolean`
  FROM staff;
SELECT 'actor', actor_id, concat(first_name, ' ', last_name) AS `name` FROM actor;
SELECT 'film', film_id, title AS `title`, description AS `description`, release_year AS `year:number`,
       rental_rate AS `rate`, replacement_cost AS `cost:number`, length AS `minutes:number`, rating AS `rating`,
       if(special_features = '', '[]', concat('["', replace(special_features, ',', '","'), '"]')) AS `features:json`,
       date_format(last_update, '%Y-%m-%dT%H:%i:%sZ') AS `changed_at`
  FROM film;
SELECT 'rental', rental_id, date_format(rental_date, '%Y-%m-%dT%H:%i:%s') AS `rented_at`,
       date_format(return_date, '%Y-%m-%dT%H:%i:%s') AS `returned_at`, return_date IS NULL AS `open:boolean`,
       concat('customer-', customer_id) AS `customer:ref`
  FROM rental;
SELECT 'payment', payment_id, amount AS `amount`, date_format(payment_date, '%Y-%m-%d') AS `paid_on`,
       concat('customer-', customer_id) AS `customer:ref`
  FROM payment;
