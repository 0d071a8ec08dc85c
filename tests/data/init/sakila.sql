-- An excerpt of Sakila (licence in ../sakila/LICENSE): its tables with their keys, and the first rows of each.

CREATE TYPE mpaa_rating AS ENUM (
    'G',
    'PG',
    'PG-13',
    'R',
    'NC-17'
);

CREATE DOMAIN year AS integer
	CONSTRAINT year_check CHECK (((VALUE >= 1901) AND (VALUE <= 2155)));

CREATE TABLE actor (
    actor_id integer NOT NULL,
    first_name character varying(45) NOT NULL,
    last_name character varying(45) NOT NULL,
    last_update timestamp without time zone DEFAULT now() NOT NULL,
    PRIMARY KEY (actor_id)
);

CREATE TABLE category (
    category_id integer NOT NULL,
    name character varying(25) NOT NULL,
    last_update timestamp without time zone DEFAULT now() NOT NULL,
    PRIMARY KEY (category_id)
);

CREATE TABLE film (
    film_id integer NOT NULL,
    title character varying(255) NOT NULL,
    description text,
    release_year year,
    language_id integer NOT NULL,
    original_language_id integer,
    rental_duration smallint DEFAULT 3 NOT NULL,
    rental_rate numeric(4,2) DEFAULT 4.99 NOT NULL,
    length smallint,
    replacement_cost numeric(5,2) DEFAULT 19.99 NOT NULL,
    rating mpaa_rating DEFAULT 'G'::mpaa_rating,
    last_update timestamp without time zone DEFAULT now() NOT NULL,
    special_features text[],
    fulltext tsvector NOT NULL,
    PRIMARY KEY (film_id)
);

CREATE TABLE film_actor (
    actor_id integer NOT NULL,
    film_id integer NOT NULL,
    last_update timestamp without time zone DEFAULT now() NOT NULL,
    PRIMARY KEY (actor_id, film_id)
);

CREATE TABLE film_category (
    film_id integer NOT NULL,
    category_id integer NOT NULL,
    last_update timestamp without time zone DEFAULT now() NOT NULL,
    PRIMARY KEY (film_id, category_id)
);

CREATE TABLE address (
    address_id integer NOT NULL,
    address character varying(50) NOT NULL,
    address2 character varying(50),
    district character varying(20) NOT NULL,
    city_id integer NOT NULL,
    postal_code character varying(10),
    phone character varying(20) NOT NULL,
    last_update timestamp without time zone DEFAULT now() NOT NULL,
    PRIMARY KEY (address_id)
);

CREATE TABLE city (
    city_id integer NOT NULL,
    city character varying(50) NOT NULL,
    country_id integer NOT NULL,
    last_update timestamp without time zone DEFAULT now() NOT NULL,
    PRIMARY KEY (city_id)
);

CREATE TABLE country (
    country_id integer NOT NULL,
    country character varying(50) NOT NULL,
    last_update timestamp without time zone DEFAULT now() NOT NULL,
    PRIMARY KEY (country_id)
);

CREATE TABLE customer (
    customer_id integer NOT NULL,
    store_id integer NOT NULL,
    first_name character varying(45) NOT NULL,
    last_name character varying(45) NOT NULL,
    email character varying(50),
    address_id integer NOT NULL,
    activebool boolean DEFAULT true NOT NULL,
    create_date date DEFAULT now() NOT NULL,
    last_update timestamp without time zone DEFAULT now(),
    active integer,
    PRIMARY KEY (customer_id)
);

CREATE TABLE inventory (
    inventory_id integer NOT NULL,
    film_id integer NOT NULL,
    store_id integer NOT NULL,
    last_update timestamp without time zone DEFAULT now() NOT NULL,
    PRIMARY KEY (inventory_id)
);

CREATE TABLE language (
    language_id integer NOT NULL,
    name character(20) NOT NULL,
    last_update timestamp without time zone DEFAULT now() NOT NULL,
    PRIMARY KEY (language_id)
);

CREATE TABLE payment (
    payment_id integer NOT NULL,
    customer_id integer NOT NULL,
    staff_id integer NOT NULL,
    rental_id integer NOT NULL,
    amount numeric(5,2) NOT NULL,
    payment_date timestamp without time zone NOT NULL,
    PRIMARY KEY (payment_id)
);

CREATE TABLE rental (
    rental_id integer NOT NULL,
    rental_date timestamp without time zone NOT NULL,
    inventory_id integer NOT NULL,
    customer_id integer NOT NULL,
    return_date timestamp without time zone,
    staff_id integer NOT NULL,
    last_update timestamp without time zone DEFAULT now() NOT NULL,
    PRIMARY KEY (rental_id)
);

CREATE TABLE staff (
    staff_id integer NOT NULL,
    first_name character varying(45) NOT NULL,
    last_name character varying(45) NOT NULL,
    address_id integer NOT NULL,
    email character varying(50),
    store_id integer NOT NULL,
    active boolean DEFAULT true NOT NULL,
    username character varying(16) NOT NULL,
    password character varying(40),
    last_update timestamp without time zone DEFAULT now() NOT NULL,
    picture bytea,
    PRIMARY KEY (staff_id)
);

CREATE TABLE store (
    store_id integer NOT NULL,
    manager_staff_id integer NOT NULL,
    address_id integer NOT NULL,
    last_update timestamp without time zone DEFAULT now() NOT NULL,
    PRIMARY KEY (store_id)
);

COPY language (language_id, name, last_update) FROM stdin;
5	French              	2006-02-15 05:02:19
1	English             	2006-02-15 05:02:19
6	German              	2006-02-15 05:02:19
4	Mandarin            	2006-02-15 05:02:19
2	Italian             	2006-02-15 05:02:19
3	Japanese            	2006-02-15 05:02:19
\.

COPY country (country_id, country, last_update) FROM stdin;
81	Saint Vincent and the Grenadines	2006-02-15 04:44:00
61	Moldova	2006-02-15 04:44:00
45	Indonesia	2006-02-15 04:44:00
5	Anguilla	2006-02-15 04:44:00
1	Afghanistan	2006-02-15 04:44:00
98	Turkmenistan	2006-02-15 04:44:00
102	United Kingdom	2006-02-15 04:44:00
49	Italy	2006-02-15 04:44:00
11	Bahrain	2006-02-15 04:44:00
78	Romania	2006-02-15 04:44:00
64	Myanmar	2006-02-15 04:44:00
107	Yemen	2006-02-15 04:44:00
41	Holy See (Vatican City State)	2006-02-15 04:44:00
29	Egypt	2006-02-15 04:44:00
89	Sudan	2006-02-15 04:44:00
52	Kenya	2006-02-15 04:44:00
55	Liechtenstein	2006-02-15 04:44:00
13	Belarus	2006-02-15 04:44:00
21	Chad	2006-02-15 04:44:00
43	Hungary	2006-02-15 04:44:00
38	Germany	2006-02-15 04:44:00
86	South Korea	2006-02-15 04:44:00
91	Switzerland	2006-02-15 04:44:00
90	Sweden	2006-02-15 04:44:00
\.

COPY city (city_id, city, country_id, last_update) FROM stdin;
81	Birgunj	66	2006-02-15 04:45:25
600	Ziguinchor	83	2006-02-15 04:45:25
144	Dhule (Dhulia)	44	2006-02-15 04:45:25
488	Sokoto	69	2006-02-15 04:45:25
399	Pathankot	44	2006-02-15 04:45:25
149	Dundee	102	2006-02-15 04:45:25
135	Dallas	103	2006-02-15 04:45:25
311	Loja	28	2006-02-15 04:45:25
489	Songkhla	94	2006-02-15 04:45:25
115	Chisinau	61	2006-02-15 04:45:25
367	Niznekamsk	80	2006-02-15 04:45:25
355	Nagareyama	50	2006-02-15 04:45:25
189	Guaruj	15	2006-02-15 04:45:25
479	Simferopol	100	2006-02-15 04:45:25
126	Compton	103	2006-02-15 04:45:25
509	Surakarta	45	2006-02-15 04:45:25
332	Meixian	23	2006-02-15 04:45:25
61	Baybay	75	2006-02-15 04:45:25
407	Pingxiang	23	2006-02-15 04:45:25
116	Chungho	92	2006-02-15 04:45:25
45	Baha Blanca	6	2006-02-15 04:45:25
553	Uijongbu	86	2006-02-15 04:45:25
231	Jaipur	44	2006-02-15 04:45:25
228	Iwatsuki	50	2006-02-15 04:45:25
\.

COPY address (address_id, address, address2, district, city_id, postal_code, phone, last_update) FROM stdin;
81	1692 Ede Loop	\N	 	30	9223	 	2006-02-15 04:45:30
600	1837 Kaduna Parkway	\N	 	241	82580	 	2006-02-15 04:45:30
144	1666 Beni-Mellal Place	\N	 	123	13377	 	2006-02-15 04:45:30
488	698 Jelets Boulevard	\N	 	142	2596	 	2006-02-15 04:45:30
399	331 Bydgoszcz Parkway	\N	 	181	966	 	2006-02-15 04:45:30
149	999 Sanaa Loop	\N	 	491	3439	 	2006-02-15 04:45:30
135	1752 So Leopoldo Parkway	\N	 	345	14014	 	2006-02-15 04:45:30
311	715 So Bernardo do Campo Lane	\N	 	507	84804	 	2006-02-15 04:45:30
489	1297 Alvorada Parkway	\N	 	587	11839	 	2006-02-15 04:45:30
115	1378 Alvorada Avenue	\N	 	102	75834	 	2006-02-15 04:45:30
367	1163 London Parkway	\N	 	66	6066	 	2006-02-15 04:45:30
355	469 Nakhon Sawan Street	\N	 	531	58866	 	2006-02-15 04:45:30
189	927 Barcelona Street	\N	 	467	65121	 	2006-02-15 04:45:30
479	1854 Okara Boulevard	\N	 	158	42123	 	2006-02-15 04:45:30
126	1175 Tanauan Way	\N	 	305	64615	 	2006-02-15 04:45:30
509	786 Matsue Way	\N	 	245	37469	 	2006-02-15 04:45:30
332	663 Baha Blanca Parkway	\N	 	5	33463	 	2006-02-15 04:45:30
61	943 Tokat Street	\N	 	560	45428	 	2006-02-15 04:45:30
407	1346 Mysore Drive	\N	 	92	61507	 	2006-02-15 04:45:30
116	793 Cam Ranh Avenue	\N	 	292	87057	 	2006-02-15 04:45:30
45	42 Brindisi Place	\N	 	586	16744	 	2006-02-15 04:45:30
553	1421 Quilmes Lane	\N	 	260	19151	 	2006-02-15 04:45:30
231	430 Alessandria Loop	\N	 	439	47446	 	2006-02-15 04:45:30
228	60 Poos de Caldas Street	\N	 	243	82338	 	2006-02-15 04:45:30
\.

COPY actor (actor_id, first_name, last_name, last_update) FROM stdin;
81	SCARLETT	DAMON	2006-02-15 04:34:33
144	ANGELA	WITHERSPOON	2006-02-15 04:34:33
149	RUSSELL	TEMPLE	2006-02-15 04:34:33
135	RITA	REYNOLDS	2006-02-15 04:34:33
115	HARRISON	BALE	2006-02-15 04:34:33
189	CUBA	BIRCH	2006-02-15 04:34:33
126	FRANCES	TOMEI	2006-02-15 04:34:33
61	CHRISTIAN	NEESON	2006-02-15 04:34:33
116	DAN	STREEP	2006-02-15 04:34:33
45	REESE	KILMER	2006-02-15 04:34:33
5	JOHNNY	LOLLOBRIGIDA	2006-02-15 04:34:33
142	JADA	RYDER	2006-02-15 04:34:33
1	PENELOPE	GUINESS	2006-02-15 04:34:33
140	WHOOPI	HURT	2006-02-15 04:34:33
98	CHRIS	BRIDGES	2006-02-15 04:34:33
102	WALTER	TORN	2006-02-15 04:34:33
49	ANNE	CRONYN	2006-02-15 04:34:33
11	ZERO	CAGE	2006-02-15 04:34:33
78	GROUCHO	SINATRA	2006-02-15 04:34:33
64	RAY	JOHANSSON	2006-02-15 04:34:33
107	GINA	DEGENERES	2006-02-15 04:34:33
41	JODIE	DEGENERES	2006-02-15 04:34:33
152	BEN	HARRIS	2006-02-15 04:34:33
29	ALEC	WAYNE	2006-02-15 04:34:33
\.

COPY staff (staff_id, first_name, last_name, address_id, email, store_id, active, username, password, last_update, picture) FROM stdin;
1	Mike	Hillyer	3	Mike.Hillyer@sakilastaff.com	1	t	Mike	8cb2237d0679ca88db6464eac60da96345513964	2006-02-15 04:57:16	\N
2	Jon	Stephens	4	Jon.Stephens@sakilastaff.com	2	t	Jon	8cb2237d0679ca88db6464eac60da96345513964	2006-02-15 04:57:16	\N
\.

COPY store (store_id, manager_staff_id, address_id, last_update) FROM stdin;
1	1	1	2006-02-15 04:57:12
2	2	2	2006-02-15 04:57:12
\.

COPY category (category_id, name, last_update) FROM stdin;
5	Comedy	2006-02-15 04:46:27
1	Action	2006-02-15 04:46:27
11	Horror	2006-02-15 04:46:27
13	New	2006-02-15 04:46:27
16	Travel	2006-02-15 04:46:27
12	Music	2006-02-15 04:46:27
15	Sports	2006-02-15 04:46:27
6	Documentary	2006-02-15 04:46:27
7	Drama	2006-02-15 04:46:27
9	Foreign	2006-02-15 04:46:27
10	Games	2006-02-15 04:46:27
4	Classics	2006-02-15 04:46:27
2	Animation	2006-02-15 04:46:27
8	Family	2006-02-15 04:46:27
14	Sci-Fi	2006-02-15 04:46:27
3	Children	2006-02-15 04:46:27
\.

COPY film (film_id, title, description, release_year, language_id, original_language_id, rental_duration, rental_rate, length, replacement_cost, rating, last_update, special_features, fulltext) FROM stdin;
854	STRANGERS GRAFFITI	A Brilliant Character Study of a Secret Agent And a Man who must Find a Cat in The Gulf of Mexico	2006	1	\N	4	4.99	119	22.99	R	2006-02-15 05:03:42	{Trailers,"Behind the Scenes"}	'agent':10 'brilliant':4 'cat':18 'charact':5 'find':16 'graffiti':2 'gulf':21 'man':13 'mexico':23 'must':15 'secret':9 'stranger':1 'studi':6
967	WEEKEND PERSONAL	A Fast-Paced Documentary of a Car And a Butler who must Find a Frisbee in A Jet Boat	2006	1	\N	5	2.99	134	26.99	R	2006-02-15 05:03:42	{Trailers,Commentaries,"Deleted Scenes","Behind the Scenes"}	'boat':22 'butler':13 'car':10 'documentari':7 'fast':5 'fast-pac':4 'find':16 'frisbe':18 'jet':21 'must':15 'pace':6 'person':2 'weekend':1
789	SHOCK CABIN	A Fateful Tale of a Mad Cow And a Crocodile who must Meet a Husband in New Orleans	2006	1	\N	7	2.99	79	15.99	PG-13	2006-02-15 05:03:42	{Trailers,Commentaries,"Behind the Scenes"}	'cabin':2 'cow':9 'crocodil':12 'fate':4 'husband':17 'mad':8 'meet':15 'must':14 'new':19 'orlean':20 'shock':1 'tale':5
81	BLINDNESS GUN	A Touching Drama of a Robot And a Dentist who must Meet a Hunter in A Jet Boat	2006	1	\N	6	4.99	103	29.99	PG-13	2006-02-15 05:03:42	{Trailers,"Behind the Scenes"}	'blind':1 'boat':20 'dentist':11 'drama':5 'gun':2 'hunter':16 'jet':19 'meet':14 'must':13 'robot':8 'touch':4
600	MOTIONS DETAILS	A Awe-Inspiring Reflection of a Dog And a Student who must Kill a Car in An Abandoned Fun House	2006	1	\N	5	0.99	166	16.99	PG	2006-02-15 05:03:42	{Trailers,Commentaries,"Behind the Scenes"}	'abandon':21 'awe':5 'awe-inspir':4 'car':18 'detail':2 'dog':10 'fun':22 'hous':23 'inspir':6 'kill':16 'motion':1 'must':15 'reflect':7 'student':13
144	CHINATOWN GLADIATOR	A Brilliant Panorama of a Technical Writer And a Lumberjack who must Escape a Butler in Ancient India	2006	1	\N	7	4.99	61	24.99	PG	2006-02-15 05:03:42	{Trailers,Commentaries,"Deleted Scenes"}	'ancient':19 'brilliant':4 'butler':17 'chinatown':1 'escap':15 'gladiat':2 'india':20 'lumberjack':12 'must':14 'panorama':5 'technic':8 'writer':9
835	SPY MILE	A Thrilling Documentary of a Feminist And a Feminist who must Confront a Feminist in A Baloon	2006	1	\N	6	2.99	112	13.99	PG-13	2006-02-15 05:03:42	{Trailers,Commentaries,"Deleted Scenes","Behind the Scenes"}	'baloon':19 'confront':14 'documentari':5 'feminist':8,11,16 'mile':2 'must':13 'spi':1 'thrill':4
488	JOON NORTHWEST	A Thrilling Panorama of a Technical Writer And a Car who must Discover a Forensic Psychologist in A Shark Tank	2006	1	\N	3	0.99	105	23.99	NC-17	2006-02-15 05:03:42	{Trailers,Commentaries,"Behind the Scenes"}	'car':12 'discov':15 'forens':17 'joon':1 'must':14 'northwest':2 'panorama':5 'psychologist':18 'shark':21 'tank':22 'technic':8 'thrill':4 'writer':9
985	WONDERLAND CHRISTMAS	A Awe-Inspiring Character Study of a Waitress And a Car who must Pursue a Mad Scientist in The First Manned Space Station	2006	1	\N	4	4.99	111	19.99	PG	2006-02-15 05:03:42	{Commentaries}	'awe':5 'awe-inspir':4 'car':14 'charact':7 'christma':2 'first':23 'inspir':6 'mad':19 'man':24 'must':16 'pursu':17 'scientist':20 'space':25 'station':26 'studi':8 'waitress':11 'wonderland':1
840	STAMPEDE DISTURBING	A Unbelieveable Tale of a Woman And a Lumberjack who must Fight a Frisbee in A U-Boat	2006	1	\N	5	0.99	75	26.99	R	2006-02-15 05:03:42	{Commentaries,"Deleted Scenes","Behind the Scenes"}	'boat':21 'disturb':2 'fight':14 'frisbe':16 'lumberjack':11 'must':13 'stamped':1 'tale':5 'u':20 'u-boat':19 'unbeliev':4 'woman':8
399	HAPPINESS UNITED	A Action-Packed Panorama of a Husband And a Feminist who must Meet a Forensic Psychologist in Ancient Japan	2006	1	\N	6	2.99	100	23.99	G	2006-02-15 05:03:42	{"Deleted Scenes"}	'action':5 'action-pack':4 'ancient':21 'feminist':13 'forens':18 'happi':1 'husband':10 'japan':22 'meet':16 'must':15 'pack':6 'panorama':7 'psychologist':19 'unit':2
984	WONDERFUL DROP	A Boring Panorama of a Woman And a Madman who must Overcome a Butler in A U-Boat	2006	1	\N	3	2.99	126	20.99	NC-17	2006-02-15 05:03:42	{Commentaries}	'boat':21 'bore':4 'butler':16 'drop':2 'madman':11 'must':13 'overcom':14 'panorama':5 'u':20 'u-boat':19 'woman':8 'wonder':1
149	CHRISTMAS MOONSHINE	A Action-Packed Epistle of a Feminist And a Astronaut who must Conquer a Boat in A Manhattan Penthouse	2006	1	\N	7	0.99	150	21.99	NC-17	2006-02-15 05:03:42	{Trailers,Commentaries,"Behind the Scenes"}	'action':5 'action-pack':4 'astronaut':13 'boat':18 'christma':1 'conquer':16 'epistl':7 'feminist':10 'manhattan':21 'moonshin':2 'must':15 'pack':6 'penthous':22
988	WORKER TARZAN	A Action-Packed Yarn of a Secret Agent And a Technical Writer who must Battle a Sumo Wrestler in The First Manned Space Station	2006	1	\N	7	2.99	139	26.99	R	2006-02-15 05:03:42	{Trailers,Commentaries,"Behind the Scenes"}	'action':5 'action-pack':4 'agent':11 'battl':18 'first':24 'man':25 'must':17 'pack':6 'secret':10 'space':26 'station':27 'sumo':20 'tarzan':2 'technic':14 'worker':1 'wrestler':21 'writer':15 'yarn':7
135	CHANCE RESURRECTION	A Astounding Story of a Forensic Psychologist And a Forensic Psychologist who must Overcome a Moose in Ancient China	2006	1	\N	3	2.99	70	22.99	R	2006-02-15 05:03:42	{Commentaries,"Deleted Scenes","Behind the Scenes"}	'ancient':20 'astound':4 'chanc':1 'china':21 'forens':8,12 'moos':18 'must':15 'overcom':16 'psychologist':9,13 'resurrect':2 'stori':5
311	FICTION CHRISTMAS	A Emotional Yarn of a A Shark And a Student who must Battle a Robot in An Abandoned Mine Shaft	2006	1	\N	4	0.99	72	14.99	PG	2006-02-15 05:03:42	{Trailers,Commentaries,"Deleted Scenes","Behind the Scenes"}	'abandon':20 'battl':15 'christma':2 'emot':4 'fiction':1 'mine':21 'must':14 'robot':17 'shaft':22 'shark':9 'student':12 'yarn':5
489	JUGGLER HARDLY	A Epic Story of a Mad Cow And a Astronaut who must Challenge a Car in California	2006	1	\N	4	0.99	54	14.99	PG-13	2006-02-15 05:03:42	{Trailers,Commentaries}	'astronaut':12 'california':19 'car':17 'challeng':15 'cow':9 'epic':4 'hard':2 'juggler':1 'mad':8 'must':14 'stori':5
115	CAMPUS REMEMBER	A Astounding Drama of a Crocodile And a Mad Cow who must Build a Robot in A Jet Boat	2006	1	\N	5	2.99	167	27.99	R	2006-02-15 05:03:42	{"Behind the Scenes"}	'astound':4 'boat':21 'build':15 'campus':1 'cow':12 'crocodil':8 'drama':5 'jet':20 'mad':11 'must':14 'rememb':2 'robot':17
990	WORLD LEATHERNECKS	A Unbelieveable Tale of a Pioneer And a Astronaut who must Overcome a Robot in An Abandoned Amusement Park	2006	1	\N	3	0.99	171	13.99	PG-13	2006-02-15 05:03:42	{Trailers,"Behind the Scenes"}	'abandon':19 'amus':20 'astronaut':11 'leatherneck':2 'must':13 'overcom':14 'park':21 'pioneer':8 'robot':16 'tale':5 'unbeliev':4 'world':1
970	WESTWARD SEABISCUIT	A Lacklusture Tale of a Butler And a Husband who must Face a Boy in Ancient China	2006	1	\N	7	0.99	52	11.99	NC-17	2006-02-15 05:03:42	{Commentaries,"Deleted Scenes"}	'ancient':18 'boy':16 'butler':8 'china':19 'face':14 'husband':11 'lacklustur':4 'must':13 'seabiscuit':2 'tale':5 'westward':1
367	GOLDMINE TYCOON	A Brilliant Epistle of a Composer And a Frisbee who must Conquer a Husband in The Outback	2006	1	\N	6	0.99	153	20.99	R	2006-02-15 05:03:42	{Trailers,"Behind the Scenes"}	'brilliant':4 'compos':8 'conquer':14 'epistl':5 'frisbe':11 'goldmin':1 'husband':16 'must':13 'outback':19 'tycoon':2
355	GHOSTBUSTERS ELF	A Thoughtful Epistle of a Dog And a Feminist who must Chase a Composer in Berlin	2006	1	\N	7	0.99	101	18.99	R	2006-02-15 05:03:42	{Trailers,"Deleted Scenes","Behind the Scenes"}	'berlin':18 'chase':14 'compos':16 'dog':8 'elf':2 'epistl':5 'feminist':11 'ghostbust':1 'must':13 'thought':4
189	CREATURES SHAKESPEARE	A Emotional Drama of a Womanizer And a Squirrel who must Vanquish a Crocodile in Ancient India	2006	1	\N	3	0.99	139	23.99	NC-17	2006-02-15 05:03:42	{Trailers,"Deleted Scenes"}	'ancient':18 'creatur':1 'crocodil':16 'drama':5 'emot':4 'india':19 'must':13 'shakespear':2 'squirrel':11 'vanquish':14 'woman':8
479	JEDI BENEATH	A Astounding Reflection of a Explorer And a Dentist who must Pursue a Student in Nigeria	2006	1	\N	7	0.99	128	12.99	PG	2006-02-15 05:03:42	{Trailers,Commentaries,"Deleted Scenes"}	'astound':4 'beneath':2 'dentist':11 'explor':8 'jedi':1 'must':13 'nigeria':18 'pursu':14 'reflect':5 'student':16
\.

COPY inventory (inventory_id, film_id, store_id, last_update) FROM stdin;
854	188	1	2006-02-15 05:09:17
1862	406	2	2006-02-15 05:09:17
2550	559	2	2006-02-15 05:09:17
3528	772	1	2006-02-15 05:09:17
4452	973	1	2006-02-15 05:09:17
3998	870	2	2006-02-15 05:09:17
1361	300	2	2006-02-15 05:09:17
967	215	2	2006-02-15 05:09:17
1987	433	1	2006-02-15 05:09:17
789	172	2	2006-02-15 05:09:17
81	17	1	2006-02-15 05:09:17
1311	289	1	2006-02-15 05:09:17
600	131	1	2006-02-15 05:09:17
4325	942	1	2006-02-15 05:09:17
1435	314	1	2006-02-15 05:09:17
144	30	1	2006-02-15 05:09:17
1267	281	1	2006-02-15 05:09:17
1816	395	1	2006-02-15 05:09:17
835	183	1	2006-02-15 05:09:17
1610	352	2	2006-02-15 05:09:17
3719	813	2	2006-02-15 05:09:17
3512	768	2	2006-02-15 05:09:17
4125	897	1	2006-02-15 05:09:17
4425	967	2	2006-02-15 05:09:17
\.

COPY film_actor (actor_id, film_id, last_update) FROM stdin;
132	81	2006-02-15 05:05:03
132	82	2006-02-15 05:05:03
132	133	2006-02-15 05:05:03
132	156	2006-02-15 05:05:03
132	162	2006-02-15 05:05:03
132	311	2006-02-15 05:05:03
132	345	2006-02-15 05:05:03
132	377	2006-02-15 05:05:03
132	410	2006-02-15 05:05:03
132	538	2006-02-15 05:05:03
132	562	2006-02-15 05:05:03
132	586	2006-02-15 05:05:03
132	626	2006-02-15 05:05:03
132	637	2006-02-15 05:05:03
132	698	2006-02-15 05:05:03
132	756	2006-02-15 05:05:03
132	806	2006-02-15 05:05:03
132	897	2006-02-15 05:05:03
132	899	2006-02-15 05:05:03
132	904	2006-02-15 05:05:03
132	930	2006-02-15 05:05:03
132	987	2006-02-15 05:05:03
188	1	2006-02-15 05:05:03
188	10	2006-02-15 05:05:03
\.

COPY film_category (film_id, category_id, last_update) FROM stdin;
997	12	2006-02-15 05:07:09
253	1	2006-02-15 05:07:09
478	5	2006-02-15 05:07:09
559	14	2006-02-15 05:07:09
675	13	2006-02-15 05:07:09
132	14	2006-02-15 05:07:09
188	5	2006-02-15 05:07:09
287	1	2006-02-15 05:07:09
875	15	2006-02-15 05:07:09
990	11	2006-02-15 05:07:09
415	11	2006-02-15 05:07:09
266	4	2006-02-15 05:07:09
687	6	2006-02-15 05:07:09
857	5	2006-02-15 05:07:09
398	12	2006-02-15 05:07:09
860	14	2006-02-15 05:07:09
949	10	2006-02-15 05:07:09
4	11	2006-02-15 05:07:09
702	11	2006-02-15 05:07:09
864	3	2006-02-15 05:07:09
302	10	2006-02-15 05:07:09
278	12	2006-02-15 05:07:09
977	16	2006-02-15 05:07:09
122	11	2006-02-15 05:07:09
\.

COPY customer (customer_id, store_id, first_name, last_name, email, address_id, activebool, create_date, last_update, active) FROM stdin;
81	1	ANDREA	HENDERSON	ANDREA.HENDERSON@sakilacustomer.org	85	t	2006-02-14	2006-02-15 04:57:20	1
144	1	CLARA	SHAW	CLARA.SHAW@sakilacustomer.org	148	t	2006-02-14	2006-02-15 04:57:20	1
488	2	SHANE	MILLARD	SHANE.MILLARD@sakilacustomer.org	493	t	2006-02-14	2006-02-15 04:57:20	1
399	1	DANNY	ISOM	DANNY.ISOM@sakilacustomer.org	404	t	2006-02-14	2006-02-15 04:57:20	1
149	1	VALERIE	BLACK	VALERIE.BLACK@sakilacustomer.org	153	t	2006-02-14	2006-02-15 04:57:20	1
135	2	JUANITA	MASON	JUANITA.MASON@sakilacustomer.org	139	t	2006-02-14	2006-02-15 04:57:20	1
311	2	PAUL	TROUT	PAUL.TROUT@sakilacustomer.org	316	t	2006-02-14	2006-02-15 04:57:20	1
489	1	RICARDO	MEADOR	RICARDO.MEADOR@sakilacustomer.org	494	t	2006-02-14	2006-02-15 04:57:20	1
115	1	WENDY	HARRISON	WENDY.HARRISON@sakilacustomer.org	119	t	2006-02-14	2006-02-15 04:57:20	1
367	1	ADAM	GOOCH	ADAM.GOOCH@sakilacustomer.org	372	t	2006-02-14	2006-02-15 04:57:20	1
355	2	TERRY	GRISSOM	TERRY.GRISSOM@sakilacustomer.org	360	t	2006-02-14	2006-02-15 04:57:20	1
189	1	LORETTA	CARPENTER	LORETTA.CARPENTER@sakilacustomer.org	193	t	2006-02-14	2006-02-15 04:57:20	1
479	1	ZACHARY	HITE	ZACHARY.HITE@sakilacustomer.org	484	t	2006-02-14	2006-02-15 04:57:20	1
126	1	ELLEN	SIMPSON	ELLEN.SIMPSON@sakilacustomer.org	130	t	2006-02-14	2006-02-15 04:57:20	1
509	1	RAUL	FORTIER	RAUL.FORTIER@sakilacustomer.org	514	t	2006-02-14	2006-02-15 04:57:20	1
332	1	STEPHEN	QUALLS	STEPHEN.QUALLS@sakilacustomer.org	337	t	2006-02-14	2006-02-15 04:57:20	1
61	2	KATHERINE	RIVERA	KATHERINE.RIVERA@sakilacustomer.org	65	t	2006-02-14	2006-02-15 04:57:20	1
407	1	DALE	RATCLIFF	DALE.RATCLIFF@sakilacustomer.org	412	t	2006-02-14	2006-02-15 04:57:20	1
116	1	VICTORIA	GIBSON	VICTORIA.GIBSON@sakilacustomer.org	120	t	2006-02-14	2006-02-15 04:57:20	1
45	1	JANET	PHILLIPS	JANET.PHILLIPS@sakilacustomer.org	49	t	2006-02-14	2006-02-15 04:57:20	1
553	1	MAX	PITT	MAX.PITT@sakilacustomer.org	559	t	2006-02-14	2006-02-15 04:57:20	1
231	1	GEORGIA	JACOBS	GEORGIA.JACOBS@sakilacustomer.org	235	t	2006-02-14	2006-02-15 04:57:20	1
228	2	ALLISON	STANLEY	ALLISON.STANLEY@sakilacustomer.org	232	t	2006-02-14	2006-02-15 04:57:20	1
572	1	SIDNEY	BURLESON	SIDNEY.BURLESON@sakilacustomer.org	578	t	2006-02-14	2006-02-15 04:57:20	1
\.

COPY rental (rental_id, rental_date, inventory_id, customer_id, return_date, staff_id, last_update) FROM stdin;
854	2005-05-30 01:56:11	921	369	2005-06-01 06:34:11	2	2006-02-15 21:30:53
10244	2005-08-01 02:20:01	567	51	2005-08-06 23:06:01	2	2006-02-15 21:30:53
9643	2005-07-31 05:35:48	3576	538	2005-08-08 04:28:48	2	2006-02-15 21:30:53
1862	2005-06-17 01:29:30	3299	553	2005-06-25 20:43:30	1	2006-02-15 21:30:53
8965	2005-07-30 03:52:37	2419	599	2005-08-05 01:28:37	2	2006-02-15 21:30:53
7947	2005-07-28 13:05:50	2504	279	2005-08-02 11:16:50	2	2006-02-15 21:30:53
2550	2005-06-19 02:49:55	1370	38	2005-06-24 01:37:55	1	2006-02-15 21:30:53
8957	2005-07-30 03:34:10	811	158	2005-08-06 07:05:10	1	2006-02-15 21:30:53
5861	2005-07-10 18:14:22	3881	277	2005-07-14 15:32:22	1	2006-02-15 21:30:53
13622	2005-08-20 06:45:32	3355	335	2005-08-25 02:40:32	1	2006-02-15 21:30:53
3528	2005-07-06 01:13:27	1954	201	2005-07-06 23:45:27	2	2006-02-15 21:30:53
4452	2005-07-07 23:31:54	2414	460	2005-07-14 04:05:54	1	2006-02-15 21:30:53
11163	2005-08-02 10:08:40	1925	505	2005-08-05 14:59:40	1	2006-02-15 21:30:53
3998	2005-07-06 23:49:20	1245	566	2005-07-12 20:39:20	1	2006-02-15 21:30:53
11033	2005-08-02 05:54:17	3323	155	2005-08-09 10:50:17	2	2006-02-15 21:30:53
5307	2005-07-09 15:57:15	2847	32	2005-07-17 13:42:15	2	2006-02-15 21:30:53
8648	2005-07-29 14:56:21	160	416	2005-07-31 16:56:21	2	2006-02-15 21:30:53
9218	2005-07-30 13:14:35	119	172	2005-08-07 18:03:35	1	2006-02-15 21:30:53
7553	2005-07-27 22:11:36	1643	275	2005-08-03 17:52:36	1	2006-02-15 21:30:53
8930	2005-07-30 02:28:38	1107	202	2005-08-02 01:43:38	2	2006-02-15 21:30:53
8939	2005-07-30 02:56:53	4175	598	2005-08-01 21:19:53	1	2006-02-15 21:30:53
1361	2005-06-15 13:37:38	4338	115	2005-06-19 17:08:38	1	2006-02-15 21:30:53
6895	2005-07-12 21:23:59	2935	599	2005-07-19 20:47:59	2	2006-02-15 21:30:53
967	2005-05-30 19:12:06	1954	330	2005-06-09 00:02:06	2	2006-02-15 21:30:53
\.

COPY payment (payment_id, customer_id, staff_id, rental_id, amount, payment_date) FROM stdin;
854	31	1	2233	0.99	2005-06-18 03:57:36
10244	378	1	12596	2.99	2005-08-18 16:29:35
9643	357	2	2153	6.99	2005-06-17 22:58:04
1862	68	2	13475	4.99	2005-08-20 01:05:05
8965	332	2	5381	2.99	2005-07-09 19:11:11
7947	293	1	13817	4.99	2005-08-20 13:15:30
2550	93	2	14333	4.99	2005-08-21 08:31:03
8957	331	2	15447	3.99	2005-08-23 00:53:57
5861	216	1	1672	3.99	2005-06-16 10:37:34
13622	505	1	14398	2.99	2005-08-21 10:27:21
3528	131	2	55	2.99	2005-05-25 08:26:13
4452	164	2	1713	4.99	2005-06-16 14:28:33
11163	412	2	11027	4.99	2005-08-02 05:47:10
3998	147	2	10752	8.99	2005-08-01 20:08:49
11033	408	2	59	5.99	2005-05-25 08:56:42
5307	196	1	10191	4.99	2005-08-01 00:28:38
8648	319	1	12018	4.99	2005-08-17 19:44:46
9218	341	1	1849	7.99	2005-06-17 00:13:19
7553	279	1	979	2.99	2005-05-30 21:37:11
8930	330	1	12867	0.99	2005-08-19 02:40:11
8939	331	2	3871	8.99	2005-07-06 17:58:51
1361	50	2	1136	4.99	2005-05-31 19:19:36
6895	256	2	1965	0.99	2005-06-17 09:17:39
967	35	1	6147	5.99	2005-07-11 09:13:08
\.
