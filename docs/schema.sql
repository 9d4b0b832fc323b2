-- The tables as all migrations leave them, each with its constraints, indexes and triggers; then the functions, with
-- those that the service makes when it starts (their names end with a digest of their text). `make snapshots` writes
-- this file, to be read; to make a database, run `orders migrate`.


-- access_keys ---------------------------------------------------------------------------------------------------------

CREATE TABLE public.access_keys (
    id text NOT NULL,
    family text NOT NULL,
    name text NOT NULL,
    digest bytea NOT NULL,
    scopes text[] NOT NULL,
    channel text,
    rate integer,
    expires_at timestamp with time zone,
    replaced_by text,
    revoked_at timestamp with time zone,
    used_at timestamp with time zone,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    created_by text NOT NULL,
    CONSTRAINT access_keys_channel_check CHECK ((channel ~ '^[a-z0-9_-]{1,64}$'::text)),
    CONSTRAINT access_keys_digest_check CHECK ((octet_length(digest) = 32)),
    CONSTRAINT access_keys_id_check CHECK ((id ~ '^[0-9A-Za-z]{8}$'::text)),
    CONSTRAINT access_keys_name_check CHECK (((char_length(name) >= 1) AND (char_length(name) <= 60))),
    CONSTRAINT access_keys_rate_check CHECK ((rate > 0)),
    CONSTRAINT access_keys_scopes_check CHECK ((cardinality(scopes) > 0))
);

ALTER TABLE ONLY public.access_keys
    ADD CONSTRAINT access_keys_digest_key UNIQUE (digest);

ALTER TABLE ONLY public.access_keys
    ADD CONSTRAINT access_keys_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.access_keys
    ADD CONSTRAINT access_keys_replaced_by_fkey FOREIGN KEY (replaced_by) REFERENCES public.access_keys(id);


-- audit ---------------------------------------------------------------------------------------------------------------

CREATE TABLE public.audit (
    id bigint NOT NULL,
    at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    actor text NOT NULL,
    address inet,
    action text NOT NULL,
    subject text,
    before jsonb,
    after jsonb,
    request_id text
);

ALTER TABLE public.audit ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.audit_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

ALTER TABLE ONLY public.audit
    ADD CONSTRAINT audit_pkey PRIMARY KEY (id);

CREATE INDEX audit_by_action ON public.audit USING btree (action, id);

CREATE INDEX audit_by_actor ON public.audit USING btree (actor, id);

CREATE TRIGGER audit_is_kept BEFORE DELETE OR UPDATE OR TRUNCATE ON public.audit FOR EACH STATEMENT EXECUTE FUNCTION public.audit_is_kept();


-- cart_closings -------------------------------------------------------------------------------------------------------

CREATE TABLE public.cart_closings (
    order_id uuid NOT NULL,
    customer_id bigint NOT NULL,
    cart_id bigint,
    queued_at timestamp with time zone DEFAULT now() NOT NULL,
    retry_at timestamp with time zone DEFAULT now() NOT NULL
);

ALTER TABLE ONLY public.cart_closings
    ADD CONSTRAINT cart_closings_pkey PRIMARY KEY (order_id);

ALTER TABLE ONLY public.cart_closings
    ADD CONSTRAINT cart_closings_order_id_fkey FOREIGN KEY (order_id) REFERENCES public.orders(id);

CREATE INDEX cart_closings_due ON public.cart_closings USING btree (retry_at);


-- events --------------------------------------------------------------------------------------------------------------

CREATE TABLE public.events (
    "position" bigint NOT NULL,
    order_id uuid NOT NULL,
    number integer NOT NULL,
    type text NOT NULL,
    CONSTRAINT events_position_check CHECK (("position" > 0))
);

ALTER TABLE ONLY public.events
    ADD CONSTRAINT event_has_one_position UNIQUE (order_id, number);

ALTER TABLE ONLY public.events
    ADD CONSTRAINT events_pkey PRIMARY KEY ("position");


-- events_head ---------------------------------------------------------------------------------------------------------

CREATE TABLE public.events_head (
    "position" bigint NOT NULL,
    seen pg_snapshot NOT NULL,
    cluster bigint,
    walked_order uuid,
    walked_number integer,
    forgotten bigint DEFAULT 0 NOT NULL,
    forgotten_at timestamp with time zone,
    forgotten_xact xid8,
    CONSTRAINT walk_is_somewhere CHECK (((walked_order IS NULL) = (walked_number IS NULL)))
);

ALTER TABLE ONLY public.events_head
    ADD CONSTRAINT events_head_pkey PRIMARY KEY ("position");


-- idempotency_keys ----------------------------------------------------------------------------------------------------

CREATE TABLE public.idempotency_keys (
    key text NOT NULL,
    fingerprint bytea NOT NULL,
    batch_id uuid NOT NULL,
    status smallint,
    body text,
    order_id uuid,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT outcome_is_whole CHECK (((status IS NULL) = (body IS NULL))),
    CONSTRAINT placed_names_its_order CHECK ((((status = 201) = (order_id IS NOT NULL)) OR (status IS NULL)))
);

ALTER TABLE ONLY public.idempotency_keys
    ADD CONSTRAINT idempotency_keys_pkey PRIMARY KEY (key);

ALTER TABLE ONLY public.idempotency_keys
    ADD CONSTRAINT idempotency_keys_order_id_fkey FOREIGN KEY (order_id) REFERENCES public.orders(id);

CREATE INDEX idempotency_keys_by_age ON public.idempotency_keys USING btree (created_at);

CREATE INDEX idempotency_keys_running ON public.idempotency_keys USING btree (batch_id) WHERE (status IS NULL);


-- neighbours ----------------------------------------------------------------------------------------------------------

CREATE TABLE public.neighbours (
    name text NOT NULL,
    address text NOT NULL,
    concurrency integer DEFAULT 1 NOT NULL,
    is_proven boolean DEFAULT false NOT NULL,
    wrong_count integer DEFAULT 0 NOT NULL,
    probe_at timestamp with time zone DEFAULT now() NOT NULL,
    learnt_at timestamp with time zone DEFAULT now() NOT NULL,
    holder uuid,
    held_until timestamp with time zone,
    wanted_until timestamp with time zone,
    CONSTRAINT concurrency_is_positive CHECK ((concurrency > 0)),
    CONSTRAINT neighbour_is_known CHECK ((name = ANY (ARRAY['catalog'::text, 'cart'::text]))),
    CONSTRAINT who_holds_has_a_lease CHECK (((holder IS NULL) = (held_until IS NULL))),
    CONSTRAINT wrong_count_is_a_count CHECK ((wrong_count >= 0))
);

ALTER TABLE ONLY public.neighbours
    ADD CONSTRAINT neighbours_pkey PRIMARY KEY (name, address);


-- order_events --------------------------------------------------------------------------------------------------------

CREATE TABLE public.order_events (
    order_id uuid NOT NULL,
    number integer NOT NULL,
    type text NOT NULL,
    before jsonb,
    after jsonb,
    details jsonb,
    actor text NOT NULL,
    reason text,
    note text,
    request_id text,
    at timestamp with time zone DEFAULT now() NOT NULL,
    xact xid8 DEFAULT pg_current_xact_id(),
    CONSTRAINT order_events_number_check CHECK ((number > 0))
);

ALTER TABLE ONLY public.order_events
    ADD CONSTRAINT order_events_pkey PRIMARY KEY (order_id, number);

ALTER TABLE ONLY public.order_events
    ADD CONSTRAINT order_events_order_id_fkey FOREIGN KEY (order_id) REFERENCES public.orders(id);

CREATE INDEX order_events_by_xact ON public.order_events USING btree (xact) WHERE (xact IS NOT NULL);


-- order_items ---------------------------------------------------------------------------------------------------------

CREATE TABLE public.order_items (
    id bigint NOT NULL,
    order_id uuid NOT NULL,
    product_id bigint NOT NULL,
    quantity integer NOT NULL,
    name text,
    unit_price bigint,
    cancelled integer DEFAULT 0 NOT NULL,
    returned integer DEFAULT 0 NOT NULL,
    CONSTRAINT order_items_cancelled_check CHECK ((cancelled >= 0)),
    CONSTRAINT order_items_product_id_check CHECK ((product_id > 0)),
    CONSTRAINT order_items_returned_check CHECK ((returned >= 0)),
    CONSTRAINT order_items_unit_price_check CHECK ((unit_price >= 0)),
    CONSTRAINT quantity_is_left CHECK (((quantity > 0) OR ((quantity = 0) AND (cancelled > 0)))),
    CONSTRAINT returned_was_there CHECK ((returned <= quantity))
);

ALTER TABLE public.order_items ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME public.order_items_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

ALTER TABLE ONLY public.order_items
    ADD CONSTRAINT order_items_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.order_items
    ADD CONSTRAINT order_items_order_id_fkey FOREIGN KEY (order_id) REFERENCES public.orders(id);

CREATE INDEX order_items_by_order ON public.order_items USING btree (order_id);

CREATE INDEX order_items_by_product ON public.order_items USING btree (product_id, order_id);

CREATE TRIGGER sale_is_noted AFTER UPDATE OF quantity, unit_price ON public.order_items FOR EACH ROW EXECUTE FUNCTION public.sales_note_change();


-- order_metadata ------------------------------------------------------------------------------------------------------

CREATE TABLE public.order_metadata (
    key text NOT NULL,
    value text NOT NULL,
    order_id uuid NOT NULL
);

ALTER TABLE ONLY public.order_metadata
    ADD CONSTRAINT order_metadata_pkey PRIMARY KEY (key, value, order_id);

ALTER TABLE ONLY public.order_metadata
    ADD CONSTRAINT order_metadata_order_id_fkey FOREIGN KEY (order_id) REFERENCES public.orders(id);


-- order_numbers -------------------------------------------------------------------------------------------------------

CREATE SEQUENCE public.order_numbers
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


-- order_statuses ------------------------------------------------------------------------------------------------------

CREATE TABLE public.order_statuses (
    status text NOT NULL,
    "position" smallint NOT NULL,
    label text NOT NULL,
    description text NOT NULL,
    allowed text[] NOT NULL,
    is_hold boolean NOT NULL,
    is_final boolean NOT NULL,
    gives_stock_back boolean NOT NULL,
    CONSTRAINT final_has_no_next CHECK (((NOT is_final) OR (allowed = '{}'::text[])))
);

ALTER TABLE ONLY public.order_statuses
    ADD CONSTRAINT order_statuses_pkey PRIMARY KEY (status);

ALTER TABLE ONLY public.order_statuses
    ADD CONSTRAINT order_statuses_position_key UNIQUE ("position");


-- order_workflow ------------------------------------------------------------------------------------------------------

CREATE TABLE public.order_workflow (
    is_only boolean DEFAULT true NOT NULL,
    document text NOT NULL,
    installed_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT order_workflow_is_only_check CHECK (is_only)
);

ALTER TABLE ONLY public.order_workflow
    ADD CONSTRAINT order_workflow_pkey PRIMARY KEY (is_only);


-- orders --------------------------------------------------------------------------------------------------------------

CREATE TABLE public.orders (
    id uuid NOT NULL,
    number bigint NOT NULL,
    customer_id bigint NOT NULL,
    status text NOT NULL,
    held_from text,
    currency text DEFAULT 'USD'::text NOT NULL,
    total bigint,
    version integer DEFAULT 1 NOT NULL,
    cart_id bigint,
    batch_id uuid,
    failure text,
    adopted boolean DEFAULT false NOT NULL,
    created_at timestamp with time zone DEFAULT now(),
    updated_at timestamp with time zone DEFAULT now(),
    placed_at timestamp with time zone,
    moved_at timestamp with time zone,
    external_reference text,
    metadata jsonb,
    public_note text,
    private_note text,
    channel text,
    CONSTRAINT customer_is_positive CHECK (((customer_id > 0) OR adopted)),
    CONSTRAINT failed_has_a_reason CHECK ((adopted OR ((failure IS NOT NULL) = (status = 'Failed'::text)))),
    CONSTRAINT not_placed_has_none CHECK (((placed_at IS NULL) OR (status <> 'Pending'::text))),
    CONSTRAINT only_adopted_lack_facts CHECK ((adopted OR ((total IS NOT NULL) AND (created_at IS NOT NULL) AND (updated_at IS NOT NULL)))),
    CONSTRAINT pending_has_a_batch CHECK ((adopted OR (status <> 'Pending'::text) OR (batch_id IS NOT NULL))),
    CONSTRAINT placed_has_its_time CHECK ((adopted OR (status = ANY (ARRAY['Pending'::text, 'Failed'::text])) OR (placed_at IS NOT NULL))),
    CONSTRAINT total_is_not_negative CHECK ((total >= 0)),
    CONSTRAINT version_is_positive CHECK ((version > 0))
);

ALTER SEQUENCE public.order_numbers OWNED BY public.orders.number;

ALTER TABLE ONLY public.orders ALTER COLUMN number SET DEFAULT nextval('public.order_numbers'::regclass);

ALTER TABLE ONLY public.orders
    ADD CONSTRAINT orders_pkey PRIMARY KEY (id);

ALTER TABLE public.orders
    ADD CONSTRAINT channel_is_short CHECK ((channel ~ '^[a-z0-9_-]{1,64}$'::text)) NOT VALID;

ALTER TABLE public.orders
    ADD CONSTRAINT metadata_is_an_object CHECK ((jsonb_typeof(metadata) = 'object'::text)) NOT VALID;

ALTER TABLE public.orders
    ADD CONSTRAINT reference_is_short CHECK (((char_length(external_reference) >= 1) AND (char_length(external_reference) <= 255))) NOT VALID;

CREATE INDEX orders_by_channel ON public.orders USING btree (channel, id) WHERE (channel IS NOT NULL);

CREATE INDEX orders_by_customer ON public.orders USING btree (customer_id, id DESC);

CREATE INDEX orders_by_move ON public.orders USING btree (status, moved_at) WHERE ((moved_at IS NOT NULL) AND (NOT adopted));

CREATE UNIQUE INDEX orders_by_number ON public.orders USING btree (number) INCLUDE (status, id);

CREATE INDEX orders_by_status ON public.orders USING btree (status, id DESC);

CREATE INDEX orders_by_status_and_total ON public.orders USING btree (status, COALESCE(total, ('-1'::integer)::bigint), id) WHERE ((status <> ALL (ARRAY['Pending'::text, 'Failed'::text])) OR adopted);

CREATE INDEX orders_by_status_and_update ON public.orders USING btree (status, COALESCE(updated_at, '-infinity'::timestamp with time zone), id) WHERE ((status <> ALL (ARRAY['Pending'::text, 'Failed'::text])) OR adopted);

CREATE UNIQUE INDEX orders_one_per_cart ON public.orders USING btree (customer_id, cart_id) WHERE ((cart_id IS NOT NULL) AND (status <> 'Failed'::text));

CREATE UNIQUE INDEX orders_one_per_reference ON public.orders USING btree (external_reference, (
CASE
    WHEN ((status = 'Failed'::text) AND (NOT adopted)) THEN id
    ELSE '00000000-0000-0000-0000-000000000000'::uuid
END)) WHERE (external_reference IS NOT NULL);

CREATE INDEX orders_unfinished ON public.orders USING btree (batch_id) WHERE (status = ANY (ARRAY['Pending'::text, 'Failed'::text]));

CREATE TRIGGER check_first_status BEFORE INSERT ON public.orders FOR EACH ROW WHEN ((new.status <> 'Pending'::text)) EXECUTE FUNCTION public.orders_check_status();

CREATE TRIGGER check_status BEFORE UPDATE OF status, held_from ON public.orders FOR EACH ROW WHEN ((((old.status IS DISTINCT FROM new.status) OR (old.held_from IS DISTINCT FROM new.held_from)) AND (NOT ((old.status = 'Pending'::text) AND (new.status = ANY (ARRAY['Ordered'::text, 'Failed'::text])) AND (new.held_from IS NULL))))) EXECUTE FUNCTION public.orders_check_status();

CREATE TRIGGER keep_history AFTER UPDATE ON public.orders FOR EACH ROW WHEN ((new.version <> old.version)) EXECUTE FUNCTION public.orders_keep_history();

CREATE TRIGGER metadata_is_found AFTER INSERT ON public.orders FOR EACH ROW WHEN ((new.metadata IS NOT NULL)) EXECUTE FUNCTION public.orders_note_metadata();

CREATE TRIGGER metadata_is_found_anew AFTER UPDATE OF metadata ON public.orders FOR EACH ROW WHEN ((old.metadata IS DISTINCT FROM new.metadata)) EXECUTE FUNCTION public.orders_note_metadata();

CREATE TRIGGER old_sale_is_noted AFTER INSERT ON public.orders FOR EACH ROW WHEN ((new.created_at < (now() - '1 day'::interval))) EXECUTE FUNCTION public.sales_note_change();

CREATE TRIGGER old_standing_is_noted AFTER INSERT ON public.orders FOR EACH ROW WHEN (((new.created_at < (now() - '1 day'::interval)) IS NOT FALSE)) EXECUTE FUNCTION public.standings_note_change();

CREATE TRIGGER sale_is_noted AFTER UPDATE OF status, total, placed_at ON public.orders FOR EACH ROW WHEN (((new.created_at < (now() - '1 day'::interval)) AND ((old.total IS DISTINCT FROM new.total) OR (((old.placed_at IS NOT NULL) AND (old.status <> 'Cancelled'::text)) <> ((new.placed_at IS NOT NULL) AND (new.status <> 'Cancelled'::text)))))) EXECUTE FUNCTION public.sales_note_change();

CREATE TRIGGER standing_is_noted AFTER UPDATE OF status, moved_at, adopted ON public.orders FOR EACH ROW WHEN ((((new.created_at < (now() - '1 day'::interval)) IS NOT FALSE) AND (((old.status IS DISTINCT FROM new.status) OR (old.moved_at IS DISTINCT FROM new.moved_at)) OR (old.adopted IS DISTINCT FROM new.adopted)))) EXECUTE FUNCTION public.standings_note_change();


-- orders_schema_version -----------------------------------------------------------------------------------------------

CREATE TABLE public.orders_schema_version (
    version_num character varying(32) NOT NULL
);

ALTER TABLE ONLY public.orders_schema_version
    ADD CONSTRAINT orders_schema_version_pkc PRIMARY KEY (version_num);


-- outbox --------------------------------------------------------------------------------------------------------------

CREATE TABLE public.outbox (
    id uuid NOT NULL,
    aggregatetype text NOT NULL,
    aggregateid text NOT NULL,
    type text NOT NULL,
    payload jsonb NOT NULL,
    "position" bigint NOT NULL,
    at timestamp with time zone NOT NULL
);

ALTER TABLE ONLY public.outbox
    ADD CONSTRAINT outbox_pkey PRIMARY KEY (id);


-- relays --------------------------------------------------------------------------------------------------------------

CREATE TABLE public.relays (
    name text NOT NULL,
    url_hash text NOT NULL,
    "position" bigint NOT NULL,
    holder uuid,
    lease_until timestamp with time zone,
    error text,
    at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT held_until_some_time CHECK (((holder IS NULL) = (lease_until IS NULL))),
    CONSTRAINT relays_error_check CHECK ((char_length(error) <= 300)),
    CONSTRAINT relays_name_check CHECK ((name ~ '^[a-z0-9_-]{1,60}$'::text)),
    CONSTRAINT relays_position_check CHECK (("position" >= 0))
)
WITH (fillfactor='50');

ALTER TABLE ONLY public.relays
    ADD CONSTRAINT relays_pkey PRIMARY KEY (name);


-- sales_changes -------------------------------------------------------------------------------------------------------

CREATE TABLE public.sales_changes (
    id bigint NOT NULL,
    day date NOT NULL
);

ALTER TABLE public.sales_changes ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.sales_changes_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

ALTER TABLE ONLY public.sales_changes
    ADD CONSTRAINT sales_changes_pkey PRIMARY KEY (id);

CREATE INDEX sales_changes_by_day ON public.sales_changes USING btree (day);


-- sales_days ----------------------------------------------------------------------------------------------------------

CREATE TABLE public.sales_days (
    day date NOT NULL,
    orders bigint NOT NULL,
    units numeric NOT NULL,
    revenue numeric NOT NULL
);

ALTER TABLE ONLY public.sales_days
    ADD CONSTRAINT sales_days_pkey PRIMARY KEY (day);


-- sales_of_products ---------------------------------------------------------------------------------------------------

CREATE TABLE public.sales_of_products (
    day date NOT NULL,
    product_id bigint NOT NULL,
    orders bigint NOT NULL,
    units numeric NOT NULL,
    revenue numeric NOT NULL
);

ALTER TABLE ONLY public.sales_of_products
    ADD CONSTRAINT sales_of_products_pkey PRIMARY KEY (day, product_id);


-- standing_changes ----------------------------------------------------------------------------------------------------

CREATE TABLE public.standing_changes (
    id bigint NOT NULL,
    day date NOT NULL,
    status text NOT NULL,
    change integer NOT NULL
);

ALTER TABLE public.standing_changes ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.standing_changes_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

ALTER TABLE ONLY public.standing_changes
    ADD CONSTRAINT standing_changes_pkey PRIMARY KEY (id);


-- standing_days -------------------------------------------------------------------------------------------------------

CREATE TABLE public.standing_days (
    day date NOT NULL,
    status text NOT NULL,
    orders bigint NOT NULL
);

ALTER TABLE ONLY public.standing_days
    ADD CONSTRAINT standing_days_pkey PRIMARY KEY (day, status);


-- stock_claims --------------------------------------------------------------------------------------------------------

CREATE TABLE public.stock_claims (
    product_id bigint NOT NULL,
    batch_id uuid,
    lease_until timestamp with time zone,
    before bigint,
    after bigint,
    lands_until timestamp with time zone,
    is_correction boolean DEFAULT false NOT NULL,
    CONSTRAINT intent_has_an_owner CHECK (((after IS NULL) OR ((batch_id IS NOT NULL) AND (lands_until IS NOT NULL)))),
    CONSTRAINT intent_is_whole CHECK (((before IS NULL) = (after IS NULL))),
    CONSTRAINT owner_has_a_lease CHECK (((batch_id IS NULL) = (lease_until IS NULL))),
    CONSTRAINT quiet_has_an_end CHECK (((batch_id IS NOT NULL) OR (lands_until IS NOT NULL))),
    CONSTRAINT stock_claims_after_check CHECK ((after >= 0)),
    CONSTRAINT stock_claims_before_check CHECK ((before >= 0)),
    CONSTRAINT stock_claims_product_id_check CHECK ((product_id > 0))
);

ALTER TABLE ONLY public.stock_claims
    ADD CONSTRAINT stock_claims_pkey PRIMARY KEY (product_id);

CREATE INDEX stock_claims_of_batch ON public.stock_claims USING btree (batch_id);


-- stock_drifts --------------------------------------------------------------------------------------------------------

CREATE VIEW public.stock_drifts AS
 SELECT product_id,
    batch_id,
    before,
    after,
    found,
    noted_at
   FROM public.stock_record
  WHERE (kind = 'in doubt'::text);


-- stock_record --------------------------------------------------------------------------------------------------------

CREATE TABLE public.stock_record (
    id bigint CONSTRAINT stock_drifts_id_not_null NOT NULL,
    product_id bigint CONSTRAINT stock_drifts_product_id_not_null NOT NULL,
    batch_id uuid CONSTRAINT stock_drifts_batch_id_not_null NOT NULL,
    before bigint CONSTRAINT stock_drifts_before_not_null NOT NULL,
    after bigint CONSTRAINT stock_drifts_after_not_null NOT NULL,
    found bigint,
    noted_at timestamp with time zone DEFAULT now() CONSTRAINT stock_drifts_noted_at_not_null NOT NULL,
    kind text DEFAULT 'in doubt'::text NOT NULL,
    figure bigint GENERATED ALWAYS AS (
CASE
    WHEN (kind = 'in doubt'::text) THEN found
    ELSE after
END) STORED,
    CONSTRAINT kind_is_known CHECK ((kind = ANY (ARRAY['moved'::text, 'in doubt'::text, 'corrected'::text, 'accepted'::text]))),
    CONSTRAINT only_doubt_has_found CHECK (((kind = 'in doubt'::text) OR (found IS NULL)))
);

ALTER TABLE public.stock_record ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.stock_drifts_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

ALTER TABLE ONLY public.stock_record
    ADD CONSTRAINT stock_drifts_pkey PRIMARY KEY (id);

CREATE INDEX stock_record_by_product ON public.stock_record USING btree (product_id, id DESC);

CREATE INDEX stock_record_doubts ON public.stock_record USING btree (product_id) WHERE (kind = 'in doubt'::text);

CREATE TRIGGER only_added_to BEFORE DELETE OR UPDATE ON public.stock_record FOR EACH STATEMENT EXECUTE FUNCTION public.stock_record_is_for_ever();


-- stock_returns -------------------------------------------------------------------------------------------------------

CREATE TABLE public.stock_returns (
    order_id uuid NOT NULL,
    product_id bigint NOT NULL,
    quantity bigint NOT NULL,
    batch_id uuid,
    queued_at timestamp with time zone DEFAULT now() NOT NULL,
    retry_at timestamp with time zone DEFAULT now() NOT NULL,
    returned_at timestamp with time zone,
    number integer DEFAULT 0 NOT NULL,
    CONSTRAINT stock_returns_product_id_check CHECK ((product_id > 0)),
    CONSTRAINT stock_returns_quantity_check CHECK ((quantity > 0))
);

ALTER TABLE ONLY public.stock_returns
    ADD CONSTRAINT stock_returns_pkey PRIMARY KEY (order_id, product_id, number);

ALTER TABLE ONLY public.stock_returns
    ADD CONSTRAINT stock_returns_order_id_fkey FOREIGN KEY (order_id) REFERENCES public.orders(id);

CREATE INDEX stock_returns_due ON public.stock_returns USING btree (product_id, retry_at) WHERE (returned_at IS NULL);


-- webhook_attempts ----------------------------------------------------------------------------------------------------

CREATE TABLE public.webhook_attempts (
    delivery_id bigint NOT NULL,
    number smallint NOT NULL,
    at timestamp with time zone NOT NULL,
    ms integer,
    status smallint,
    error text,
    reply text,
    CONSTRAINT webhook_attempts_error_check CHECK ((char_length(error) <= 300)),
    CONSTRAINT webhook_attempts_reply_check CHECK ((char_length(reply) <= 1000))
);

ALTER TABLE ONLY public.webhook_attempts
    ADD CONSTRAINT webhook_attempts_pkey PRIMARY KEY (delivery_id, number);

ALTER TABLE ONLY public.webhook_attempts
    ADD CONSTRAINT webhook_attempts_delivery_id_fkey FOREIGN KEY (delivery_id) REFERENCES public.webhook_deliveries(id) ON DELETE CASCADE;


-- webhook_deliveries --------------------------------------------------------------------------------------------------

CREATE TABLE public.webhook_deliveries (
    id bigint NOT NULL,
    webhook_id uuid NOT NULL,
    "position" bigint,
    order_id uuid,
    number integer,
    type text NOT NULL,
    notice jsonb,
    round smallint DEFAULT 0 NOT NULL,
    state text DEFAULT 'waiting'::text NOT NULL,
    attempts smallint DEFAULT 0 NOT NULL,
    due_at timestamp with time zone DEFAULT now() NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    first_at timestamp with time zone,
    last_at timestamp with time zone,
    last_status smallint,
    last_ms integer,
    last_error text,
    last_reply text,
    CONSTRAINT event_or_notice CHECK (((("position" IS NULL) = (notice IS NOT NULL)) AND (("position" IS NULL) = (order_id IS NULL)) AND (("position" IS NULL) = (number IS NULL)))),
    CONSTRAINT webhook_deliveries_last_error_check CHECK ((char_length(last_error) <= 300)),
    CONSTRAINT webhook_deliveries_last_reply_check CHECK ((char_length(last_reply) <= 1000)),
    CONSTRAINT webhook_deliveries_state_check CHECK ((state = ANY (ARRAY['waiting'::text, 'sending'::text, 'delivered'::text, 'failed'::text])))
);

ALTER TABLE public.webhook_deliveries ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.webhook_deliveries_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

ALTER TABLE ONLY public.webhook_deliveries
    ADD CONSTRAINT delivered_once_per_round UNIQUE (webhook_id, "position", round);

ALTER TABLE ONLY public.webhook_deliveries
    ADD CONSTRAINT webhook_deliveries_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.webhook_deliveries
    ADD CONSTRAINT webhook_deliveries_webhook_id_fkey FOREIGN KEY (webhook_id) REFERENCES public.webhooks(id) ON DELETE CASCADE;

CREATE INDEX webhook_deliveries_done ON public.webhook_deliveries USING btree (created_at) WHERE (state = ANY (ARRAY['delivered'::text, 'failed'::text]));

CREATE INDEX webhook_deliveries_due ON public.webhook_deliveries USING btree (webhook_id, due_at, id) WHERE (state = ANY (ARRAY['waiting'::text, 'sending'::text]));

CREATE INDEX webhook_deliveries_listed ON public.webhook_deliveries USING btree (webhook_id, id);

CREATE INDEX webhook_deliveries_of_order ON public.webhook_deliveries USING btree (order_id, "position") WHERE (state = ANY (ARRAY['waiting'::text, 'sending'::text]));


-- webhook_secrets -----------------------------------------------------------------------------------------------------

CREATE TABLE public.webhook_secrets (
    webhook_id uuid NOT NULL,
    number integer NOT NULL,
    kind text NOT NULL,
    sealed bytea NOT NULL,
    public_key text,
    signs_until timestamp with time zone,
    CONSTRAINT webhook_secrets_kind_check CHECK ((kind = ANY (ARRAY['v1'::text, 'v1a'::text])))
);

ALTER TABLE ONLY public.webhook_secrets
    ADD CONSTRAINT webhook_secrets_pkey PRIMARY KEY (webhook_id, number);

ALTER TABLE ONLY public.webhook_secrets
    ADD CONSTRAINT webhook_secrets_webhook_id_fkey FOREIGN KEY (webhook_id) REFERENCES public.webhooks(id) ON DELETE CASCADE;


-- webhooks ------------------------------------------------------------------------------------------------------------

CREATE TABLE public.webhooks (
    id uuid NOT NULL,
    url text NOT NULL,
    description text,
    types text[] NOT NULL,
    channel text,
    payload text NOT NULL,
    schema_version smallint DEFAULT 1 NOT NULL,
    ordering text NOT NULL,
    concurrency smallint DEFAULT 8 NOT NULL,
    status text DEFAULT 'enabled'::text NOT NULL,
    disabled_reason text,
    "position" bigint NOT NULL,
    failed_in_row integer DEFAULT 0 NOT NULL,
    failing_since timestamp with time zone,
    told_until timestamp with time zone,
    succeeded_at timestamp with time zone,
    slow_until timestamp with time zone,
    version integer DEFAULT 1 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    created_by text NOT NULL,
    CONSTRAINT disabled_for_a_reason CHECK (((status = 'disabled'::text) = (disabled_reason IS NOT NULL))),
    CONSTRAINT webhooks_channel_check CHECK ((channel ~ '^[a-z0-9_-]{1,64}$'::text)),
    CONSTRAINT webhooks_concurrency_check CHECK (((concurrency >= 1) AND (concurrency <= 64))),
    CONSTRAINT webhooks_description_check CHECK ((char_length(description) <= 500)),
    CONSTRAINT webhooks_disabled_reason_check CHECK ((disabled_reason = ANY (ARRAY['asked'::text, 'failing'::text, 'gone'::text]))),
    CONSTRAINT webhooks_ordering_check CHECK ((ordering = ANY (ARRAY['order'::text, 'none'::text]))),
    CONSTRAINT webhooks_payload_check CHECK ((payload = ANY (ARRAY['full'::text, 'thin'::text]))),
    CONSTRAINT webhooks_status_check CHECK ((status = ANY (ARRAY['enabled'::text, 'disabled'::text]))),
    CONSTRAINT webhooks_types_check CHECK (((cardinality(types) >= 1) AND (cardinality(types) <= 50))),
    CONSTRAINT webhooks_url_check CHECK ((char_length(url) <= 2048))
)
WITH (fillfactor='50');

ALTER TABLE ONLY public.webhooks
    ADD CONSTRAINT webhooks_pkey PRIMARY KEY (id);


-- Functions -----------------------------------------------------------------------------------------------------------

CREATE FUNCTION public.audit_is_kept() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'check_violation', CONSTRAINT = 'audit_is_kept',
        MESSAGE = 'the audit is only ever added to';
END $$;

CREATE FUNCTION public.count_standings() RETURNS date
    LANGUAGE plpgsql
    AS $$
DECLARE
    last date := (now() AT TIME ZONE 'UTC' - interval '49 hours')::date;
    counted date;
    so_far bigint;
    coming date;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtext('count_standings')) THEN
        RETURN NULL;
    END IF;
    counted := (SELECT coalesce(max(day), '1969-12-31') FROM standing_days);
    -- Looked up first: a plan that joined the table with itself, made while it was empty, would take its square.
    so_far := (SELECT max(id) FROM (SELECT id FROM standing_changes ORDER BY id LIMIT 100000) c);
    WITH gone AS (
        DELETE FROM standing_changes WHERE id <= so_far
        RETURNING day, status, change)
    INSERT INTO standing_days (day, status, orders)
        SELECT day, status, sum(change) FROM gone WHERE day <= counted GROUP BY day, status
        ON CONFLICT (day, status) DO UPDATE SET orders = standing_days.orders + excluded.orders;
    coming := (SELECT min(day) FROM (
        (SELECT order_stands_since(id, NULL, true) AS day FROM orders
         WHERE id >= order_id_at(counted + 1) ORDER BY id LIMIT 1)
        UNION ALL
        SELECT (SELECT order_stands_since(id, moved_at, false) FROM orders o
                WHERE o.status = s.status AND NOT o.adopted
                    AND o.moved_at >= (counted + 1)::timestamp AT TIME ZONE 'UTC'
                ORDER BY o.moved_at LIMIT 1)
        FROM order_statuses_there_are() s) d);
    IF coming IS NULL OR coming > last THEN
        RETURN NULL;
    END IF;
    WITH gone AS (DELETE FROM standing_changes WHERE day = coming)
    INSERT INTO standing_days (day, status, orders)
        SELECT coming, status, sum(orders) FROM (
            SELECT '' AS status, 0 AS orders
            UNION ALL SELECT status, count(*) FROM standings_between(coming, coming) GROUP BY status) s
        GROUP BY status;
    RETURN coming;
END $$;

CREATE FUNCTION public.order_created_at(id uuid) RETURNS timestamp with time zone
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    SELECT to_timestamp(('x' || substr(id::text, 1, 8) || substr(id::text, 10, 4))::bit(48)::bigint / 1000.0::float8)
$$;

CREATE FUNCTION public.order_id_at(moment timestamp without time zone) RETURNS uuid
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    SELECT (lpad(to_hex((extract(epoch FROM moment) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
$$;

CREATE FUNCTION public.order_is_sold(status text, placed_at timestamp with time zone) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$ SELECT placed_at IS NOT NULL AND status <> 'Cancelled' $$;

CREATE FUNCTION public.order_stands_since(id uuid, moved_at timestamp with time zone, adopted boolean) RETURNS date
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    SELECT ((CASE WHEN adopted OR moved_at IS NULL THEN order_created_at(id) ELSE moved_at END)
            AT TIME ZONE 'UTC')::date
$$;

CREATE FUNCTION public.order_statuses_there_are() RETURNS TABLE(status text)
    LANGUAGE sql STABLE ROWS 15
    AS $$
    WITH RECURSIVE there (status) AS (
        SELECT min(o.status) FROM orders o
        UNION ALL SELECT (SELECT min(n.status) FROM orders n WHERE n.status > there.status) FROM there
        WHERE there.status IS NOT NULL)
    SELECT there.status FROM there WHERE there.status IS NOT NULL
$$;

CREATE FUNCTION public.orders_allowed(status text, held_from text, adopted boolean) RETURNS text[]
    LANGUAGE sql STABLE
    AS $_$
    SELECT coalesce(
        (SELECT CASE WHEN s.is_hold AND $2 IS NOT NULL THEN $2 || array_remove(s.allowed, $2) ELSE s.allowed END
         FROM order_statuses s WHERE s.status = $1 AND NOT ($3 AND $1 = 'Pending')),
        (SELECT array_agg(s.status ORDER BY s.position) FROM order_statuses s
         WHERE s.status NOT IN ('Pending', 'Failed') AND $3),
        '{}')
$_$;

CREATE FUNCTION public.orders_assign_events_d12dbccb42fc(p_most integer, p_outbox boolean, p_stride integer) RETURNS SETOF record
    LANGUAGE plpgsql
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
BEGIN
DECLARE
        head events_head;
        here bigint;
        must_walk boolean;
        given integer := 0;
    BEGIN
        IF NOT pg_try_advisory_xact_lock(hashtext('assign_events')) THEN
            RETURN;
        END IF;
        IF current_setting('synchronous_commit') = 'off' THEN
            PERFORM set_config('synchronous_commit', 'on', true);
        END IF;
        IF has_function_privilege('pg_control_system()', 'execute') THEN
            here := (SELECT system_identifier FROM pg_control_system());
        END IF;
        SELECT * INTO STRICT head FROM events_head ORDER BY position DESC LIMIT 1;
        must_walk := head.cluster IS DISTINCT FROM coalesce(here, 0)
            OR pg_snapshot_xmax(head.seen) > pg_snapshot_xmax(pg_current_snapshot());

        IF NOT must_walk AND head.walked_order IS NULL THEN
            WITH found AS MATERIALIZED (
                (SELECT e.order_id, e.number, e.type, e.at FROM order_events e
                 WHERE e.xact = ANY (ARRAY(SELECT pg_snapshot_xip(head.seen))) AND (SELECT count(*) FROM events v WHERE v.order_id = e.order_id AND v.number = e.number) = 0
                 LIMIT p_most + 1)
                UNION ALL
                (SELECT e.order_id, e.number, e.type, e.at FROM order_events e
                 WHERE e.xact >= pg_snapshot_xmax(head.seen) AND (SELECT count(*) FROM events v WHERE v.order_id = e.order_id AND v.number = e.number) = 0
                 ORDER BY e.xact LIMIT p_most + 1)),
            sorted AS (
                SELECT order_id, number, type, max(at) OVER (PARTITION BY order_id ORDER BY number) AS since FROM found
                WHERE (SELECT count(*) FROM found) <= p_most),
            added AS (
                INSERT INTO events (position, order_id, number, type)
                SELECT head.position + row_number() OVER (ORDER BY since, order_id, number), order_id, number, type
                FROM sorted RETURNING 1),
            counted AS (SELECT (SELECT count(*) FROM added) AS added, (SELECT count(*) FROM found) AS found),
            moved AS (
                UPDATE events_head SET position = head.position + counted.added, seen = pg_current_snapshot()
                FROM counted WHERE position = head.position AND counted.added > 0)
            SELECT added, found > added INTO given, must_walk FROM counted;
        END IF;

        IF must_walk THEN
            UPDATE events_head SET seen = pg_current_snapshot(), cluster = coalesce(here, 0),
                                   walked_order = '00000000-0000-0000-0000-000000000000', walked_number = 0
            WHERE position = head.position RETURNING * INTO STRICT head;
        ELSIF head.walked_order IS NOT NULL THEN
            WITH passed AS MATERIALIZED (
                SELECT e.order_id, e.number, e.type, e.at, e.xact FROM order_events e
                WHERE (e.order_id, e.number) > (head.walked_order, head.walked_number)
                ORDER BY e.order_id, e.number LIMIT p_stride),
            added AS (
                INSERT INTO events (position, order_id, number, type)
                SELECT head.position + row_number() OVER (ORDER BY order_id, number), order_id, number, type
                FROM passed e WHERE (SELECT count(*) FROM events v WHERE v.order_id = e.order_id AND v.number = e.number) = 0 AND NOT (
                    e.at <= coalesce(head.forgotten_at, '-infinity')
                    AND (e.xact IS NULL OR e.xact < head.forgotten_xact))
                RETURNING 1),
            counted AS (
                SELECT (SELECT count(*) FROM added) AS added, (SELECT count(*) FROM passed) = p_stride AS goes_on),
            last AS (SELECT order_id, number FROM passed ORDER BY order_id DESC, number DESC LIMIT 1)
            UPDATE events_head SET position = head.position + counted.added,
                                   walked_order = CASE WHEN counted.goes_on THEN last.order_id END,
                                   walked_number = CASE WHEN counted.goes_on THEN last.number END
                FROM counted LEFT JOIN last ON true WHERE position = head.position
                RETURNING counted.added INTO STRICT given;
        END IF;

        IF p_outbox AND given > 0 THEN
            INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, position, at)
                SELECT overlay(overlay(left(encode(sha256(uuid_send(v.order_id) || convert_to(v.number::text, 'UTF8')), 'hex'), 32)
        placing '8' from 13 for 1) placing 'a' from 17 for 1)::uuid, 'order', v.order_id, 'order.' || v.type, jsonb_build_object(
        'type', 'order.' || e.type, 'timestamp', to_char(e.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), 'data', json_build_object(
            'position', v.position, 'order_id', e.order_id, 'number', e.number,
            'order_url', '/orders/' || e.order_id || '?at=' || e.number, 'customer_id', o.customer_id,
            'channel', o.channel, 'actor', e.actor, 'reason', e.reason,
            'before', CASE WHEN false THEN e.before ELSE jsonb_set(e.before, '{notes,private}', 'null', false) END, 'after', CASE WHEN false THEN e.after ELSE jsonb_set(e.after, '{notes,private}', 'null', false) END, 'details', e.details,
            'order', NULL)), v.position, e.at
                FROM events v
                JOIN order_events e ON e.order_id = v.order_id AND e.number = v.number
                JOIN orders o ON o.id = v.order_id
                WHERE v.position > head.position ORDER BY v.position;
            DELETE FROM outbox;
        END IF;

        RETURN QUERY SELECT h.position, given, h.walked_order IS NOT NULL FROM events_head h
                     ORDER BY h.position DESC LIMIT 1;
    END;
END $$;

CREATE FUNCTION public.orders_attached(o public.orders) RETURNS jsonb
    LANGUAGE sql IMMUTABLE
    AS $$
    SELECT jsonb_build_object('external_reference', o.external_reference, 'metadata', coalesce(o.metadata, '{}'),
                              'notes', jsonb_build_object('public', o.public_note, 'private', o.private_note))
$$;

CREATE FUNCTION public.orders_check_status() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
DECLARE
    hold boolean := (SELECT is_hold FROM order_statuses s WHERE s.status = NEW.status);
BEGIN
    IF hold IS NULL AND NOT NEW.adopted THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', CONSTRAINT = 'status_is_known',
            MESSAGE = 'there is no status ' || NEW.status;
    ELSIF hold IS DISTINCT FROM (NEW.held_from IS NOT NULL) AND NOT NEW.adopted THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', CONSTRAINT = 'held_from_somewhere',
            MESSAGE = 'an order that is on hold, and no other, knows where it was';
    ELSIF TG_OP = 'UPDATE' AND NEW.status <> OLD.status THEN
        IF NEW.status <> ALL (orders_allowed(OLD.status, OLD.held_from, OLD.adopted)) THEN
            RAISE EXCEPTION USING ERRCODE = 'check_violation', CONSTRAINT = 'status_may_follow',
                MESSAGE = NEW.status || ' can''t follow ' || OLD.status;
        ELSIF NEW.version <> OLD.version + 1 THEN
            RAISE EXCEPTION USING ERRCODE = 'check_violation', CONSTRAINT = 'version_counts_changes',
                MESSAGE = 'a change of status is a new version';
        END IF;
        NEW.moved_at := clock_timestamp();
    END IF;
    RETURN NEW;
END $$;

CREATE FUNCTION public.orders_claim_92ee0770e84f(p_batch uuid, p_keys text[], p_lease double precision, p_prints bytea[], p_products bigint[]) RETURNS SETOF record
    LANGUAGE plpgsql
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
BEGIN
IF cardinality(p_keys) > 0 THEN
INSERT INTO idempotency_keys (key, fingerprint, batch_id)
                SELECT key, fingerprint, p_batch
                FROM unnest(p_keys, p_prints) k(key, fingerprint)
                ORDER BY key ON CONFLICT DO NOTHING;
END IF;
INSERT INTO stock_claims (product_id, batch_id, lease_until)
                SELECT product_id, p_batch, now() + p_lease * interval '1 s'
                FROM unnest(p_products) product_id ORDER BY product_id ON CONFLICT DO NOTHING;
            RETURN QUERY SELECT
                (SELECT array_agg(product_id) FROM stock_claims WHERE batch_id = p_batch),
                (SELECT array_agg(key) FROM idempotency_keys WHERE batch_id = p_batch AND status IS NULL),
                (SELECT json_agg(json_build_array(r.order_id, r.product_id, r.number, r.quantity))
                 FROM stock_returns r
                 WHERE r.product_id = ANY(p_products) AND r.returned_at IS NULL AND r.batch_id IS NULL);
END $$;

CREATE FUNCTION public.orders_documents_211dd1a1ef03(p_ids uuid[]) RETURNS SETOF record
    LANGUAGE plpgsql STABLE
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
BEGIN
RETURN QUERY SELECT o.id, o.version, json_build_object(
    'id', o.id, 'number', o.number, 'customer_id', o.customer_id, 'channel', o.channel, 'status', o.status,
    'items', coalesce((
        SELECT json_agg(json_build_object(
            'id', i.id, 'product_id', i.product_id, 'name', i.name, 'quantity', i.quantity,
            'unit_price', i.unit_price, 'total', i.quantity * i.unit_price,
            'cancelled', i.cancelled, 'returned', i.returned) ORDER BY i.id)
        FROM order_items i WHERE i.order_id = o.id), '[]'),
    'currency', o.currency, 'total', o.total, 'version', o.version,
    'allowed_statuses', coalesce(
        (SELECT CASE WHEN s.is_hold AND o.held_from IS NOT NULL
                THEN o.held_from || array_remove(s.allowed, o.held_from) ELSE s.allowed END
         FROM order_statuses s WHERE s.status = o.status AND NOT (o.adopted AND o.status = 'Pending')),
        CASE WHEN o.adopted THEN orders_allowed(o.status, o.held_from, true) ELSE '{}' END),
    'external_reference', o.external_reference,
    'metadata', coalesce(o.metadata, '{}'),
    'notes', json_build_object('public', o.public_note, 'private', CASE WHEN true THEN o.private_note END),
    'created_at', to_char(o.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), 'updated_at', to_char(o.updated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))::text FROM orders o WHERE o.id = ANY(p_ids);
END $$;

CREATE FUNCTION public.orders_documents_that_fit_09ec58145295(p_bytes bigint, p_ids uuid[], p_sees_private boolean) RETURNS SETOF record
    LANGUAGE plpgsql STABLE
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
BEGIN
DECLARE
                found record;
                so_far bigint := 0;
            BEGIN
                FOR found IN
                    SELECT p.id, (SELECT json_build_object(
    'id', o.id, 'number', o.number, 'customer_id', o.customer_id, 'channel', o.channel, 'status', o.status,
    'items', coalesce((
        SELECT json_agg(json_build_object(
            'id', i.id, 'product_id', i.product_id, 'name', i.name, 'quantity', i.quantity,
            'unit_price', i.unit_price, 'total', i.quantity * i.unit_price,
            'cancelled', i.cancelled, 'returned', i.returned) ORDER BY i.id)
        FROM order_items i WHERE i.order_id = o.id), '[]'),
    'currency', o.currency, 'total', o.total, 'version', o.version,
    'allowed_statuses', coalesce(
        (SELECT CASE WHEN s.is_hold AND o.held_from IS NOT NULL
                THEN o.held_from || array_remove(s.allowed, o.held_from) ELSE s.allowed END
         FROM order_statuses s WHERE s.status = o.status AND NOT (o.adopted AND o.status = 'Pending')),
        CASE WHEN o.adopted THEN orders_allowed(o.status, o.held_from, true) ELSE '{}' END),
    'external_reference', o.external_reference,
    'metadata', coalesce(o.metadata, '{}'),
    'notes', json_build_object('public', o.public_note, 'private', CASE WHEN p_sees_private THEN o.private_note END),
    'created_at', to_char(o.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), 'updated_at', to_char(o.updated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))::text
                                  FROM orders o WHERE o.id = p.id) AS document
                    FROM unnest(p_ids) p(id)
                LOOP
                    EXIT WHEN so_far > 0 AND so_far + octet_length(found.document) > p_bytes;
                    so_far := so_far + octet_length(found.document);
                    RETURN NEXT found;
                END LOOP;
            END;
END $$;

CREATE FUNCTION public.orders_events_to_send_9f878332e62b(p_ids uuid[], p_numbers integer[], p_positions bigint[]) RETURNS SETOF record
    LANGUAGE plpgsql STABLE
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
BEGIN
RETURN QUERY SELECT w.n, json_build_object(
    'type', e.type, 'at', to_char(e.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
    'position', w.position, 'order_id', e.order_id, 'number', e.number,
    'order_url', '/orders/' || e.order_id || '?at=' || e.number, 'customer_id', o.customer_id, 'channel', o.channel,
    'actor', e.actor, 'reason', e.reason,
    'before', CASE WHEN false THEN e.before ELSE jsonb_set(e.before, '{notes,private}', 'null', false) END, 'after', CASE WHEN false THEN e.after ELSE jsonb_set(e.after, '{notes,private}', 'null', false) END, 'details', e.details)
                FROM unnest(p_ids, p_numbers, p_positions)
                    WITH ORDINALITY w(id, number, position, n)
                JOIN order_events e ON e.order_id = w.id AND e.number = w.number
                JOIN orders o ON o.id = w.id;
END $$;

CREATE FUNCTION public.orders_feed_ed413bd6f702(p_after bigint, p_bytes bigint, p_channel text, p_limit integer, p_order_id uuid, p_seen_channel text, p_seen_customer bigint, p_sees_private boolean, p_types text[]) RETURNS SETOF record
    LANGUAGE plpgsql STABLE
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
BEGIN
DECLARE
                found record;
                last bigint;
                head bigint := (SELECT position FROM events_head ORDER BY position DESC LIMIT 1);
                forgotten bigint := (SELECT forgotten FROM events_head ORDER BY position DESC LIMIT 1);
                reached bigint := CASE WHEN p_after < head THEN least(head, p_after + 10000) ELSE head END;
                given integer := 0;
                so_far bigint := 0;
            BEGIN
                FOR found IN
                    SELECT v.position, e.event
                    FROM (SELECT * FROM events
                          WHERE position > p_after AND position <= reached
                            AND (p_types IS NULL OR type = ANY (p_types))
                            AND (p_order_id IS NULL OR order_id = p_order_id)
                          ORDER BY position) v
                    CROSS JOIN LATERAL (
                        SELECT o.customer_id, o.channel FROM orders o
                        WHERE o.id = v.order_id
                          AND (p_channel IS NULL OR o.channel = p_channel)
                          AND (p_seen_channel IS NULL OR o.channel = p_seen_channel)
                          AND (p_seen_customer IS NULL OR o.customer_id = p_seen_customer) OFFSET 0) o
                    CROSS JOIN LATERAL (
                        SELECT json_build_object(
        'position', v.position, 'id', v.order_id || '-' || v.number, 'type', 'order.' || v.type,
        'order_id', v.order_id, 'number', v.number, 'customer_id', o.customer_id, 'channel', o.channel,
        'at', to_char(e.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), 'actor', CASE WHEN p_sees_private THEN e.actor ELSE 'shop' END,
        'reason', e.reason, 'note', CASE WHEN p_sees_private THEN e.note END, 'request_id', e.request_id,
        'before', CASE WHEN p_sees_private THEN e.before
                      ELSE jsonb_set(e.before, '{notes,private}', 'null', false) END, 'after', CASE WHEN p_sees_private THEN e.after
                      ELSE jsonb_set(e.after, '{notes,private}', 'null', false) END, 'details', e.details)::text AS event FROM order_events e
                        WHERE e.order_id = v.order_id AND e.number = v.number OFFSET 0) e
                    ORDER BY v.position LIMIT p_limit
                LOOP
                    so_far := so_far + octet_length(found.event);
                    EXIT WHEN given > 0 AND so_far > p_bytes;
                    RETURN NEXT found;
                    given := given + 1;
                    last := found.position;
                END LOOP;
                IF given = p_limit OR so_far > p_bytes THEN
                    reached := last;
                END IF;
                RETURN QUERY SELECT reached, (SELECT left(encode(sha256(convert_to(order_id || '-' || number, 'UTF8')), 'hex'), 8)
                                 FROM events WHERE position = reached)
                             UNION ALL SELECT head, (SELECT left(encode(sha256(convert_to(order_id || '-' || number, 'UTF8')), 'hex'), 8)
                                 FROM events WHERE position = p_after)
                             UNION ALL SELECT forgotten, NULL;
            END;
END $$;

CREATE FUNCTION public.orders_intend_ff3ea6487752(p_after bigint[], p_attached_external_reference text[], p_attached_metadata jsonb[], p_attached_private_note text[], p_attached_public_note text[], p_batch uuid, p_before bigint[], p_carts bigint[], p_created_ms bigint[], p_customers bigint[], p_d_carts bigint[], p_d_channels text[], p_d_created_ms bigint[], p_d_customers bigint[], p_d_ids uuid[], p_d_totals bigint[], p_due_numbers integer[], p_due_orders uuid[], p_due_products bigint[], p_freed text[], p_horizon double precision, p_ids uuid[], p_item_names text[], p_item_orders uuid[], p_item_prices bigint[], p_item_products bigint[], p_item_quantities integer[], p_outcome_bodies text[], p_outcome_keys text[], p_outcome_statuses smallint[], p_products bigint[], p_totals bigint[], p_unreadable bigint[]) RETURNS void
    LANGUAGE plpgsql
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
BEGIN
IF cardinality(p_products) > 0 THEN
PERFORM orders_require((
                SELECT count(*) FROM (SELECT FROM stock_claims
                    WHERE batch_id = p_batch AND product_id = ANY(p_products)
                        AND lease_until > now()
                    ORDER BY product_id FOR UPDATE) c) = cardinality(p_products), 'the lease ran out');
            UPDATE stock_claims c
                SET before = n.before, after = n.after,
                    lands_until = c.lease_until + p_horizon * interval '1 s'
                FROM unnest(p_products, p_before, p_after)
                    n(product_id, before, after)
                WHERE c.product_id = n.product_id;
END IF;
DELETE FROM stock_claims WHERE batch_id = p_batch AND after IS NULL;
IF cardinality(p_due_orders) > 0 THEN
UPDATE stock_returns r SET batch_id = p_batch
                FROM unnest(p_due_orders, p_due_products, p_due_numbers)
                    d(order_id, product_id, number)
                WHERE r.order_id = d.order_id AND r.product_id = d.product_id AND r.number = d.number;
END IF;
IF cardinality(p_ids) > 0 THEN
INSERT INTO orders (id, customer_id, status, total, cart_id, batch_id, created_at)
                SELECT id, customer_id, 'Pending', total, cart_id, p_batch, to_timestamp(ms / 1000::float8)
                FROM unnest(p_ids, p_customers, p_totals, p_carts,
                            p_created_ms) o(id, customer_id, total, cart_id, ms);
END IF;
IF cardinality(p_d_ids) > 0 THEN
INSERT INTO orders (id, customer_id, status, total, cart_id, batch_id, created_at, channel,
                                external_reference, metadata, public_note, private_note)
                SELECT id, customer_id, 'Pending', total, cart_id, p_batch, to_timestamp(ms / 1000::float8), channel,
                       external_reference, metadata, public_note, private_note
                FROM unnest(p_d_ids, p_d_customers, p_d_totals, p_d_carts,
                            p_d_created_ms, p_d_channels, p_attached_external_reference, p_attached_metadata, p_attached_public_note, p_attached_private_note)
                    o(id, customer_id, total, cart_id, ms, channel, external_reference, metadata, public_note, private_note);
END IF;
IF cardinality(p_item_orders) > 0 THEN
INSERT INTO order_items (order_id, product_id, quantity, name, unit_price)
                SELECT * FROM unnest(
                    p_item_orders, p_item_products, p_item_quantities,
                    p_item_names, p_item_prices);
END IF;
IF cardinality(p_unreadable) > 0 THEN
UPDATE stock_returns SET retry_at = now() + interval '5 s'
                WHERE product_id = ANY(p_unreadable) AND returned_at IS NULL AND batch_id IS NULL;
END IF;
IF cardinality(p_freed) > 0 THEN
DELETE FROM idempotency_keys WHERE batch_id = p_batch AND status IS NULL AND key = ANY(p_freed);
END IF;
IF cardinality(p_outcome_keys) > 0 THEN
UPDATE idempotency_keys k SET status = n.status, body = n.body
        FROM unnest(p_outcome_keys, p_outcome_statuses, p_outcome_bodies)
            n(key, status, body)
        WHERE k.key = n.key AND k.batch_id = p_batch AND k.status IS NULL;
END IF;
END $$;

CREATE FUNCTION public.orders_keep_history() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
DECLARE
    was jsonb := jsonb_build_object('status', OLD.status, 'held_from', OLD.held_from, 'total', OLD.total);
    becomes jsonb := jsonb_build_object('status', NEW.status, 'held_from', NEW.held_from, 'total', NEW.total);
BEGIN
    IF NEW.version <> OLD.version + 1 THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', CONSTRAINT = 'version_counts_changes',
            MESSAGE = 'versions are counted one by one';
    ELSIF (OLD.external_reference, OLD.metadata, OLD.public_note, OLD.private_note)
            IS DISTINCT FROM (NEW.external_reference, NEW.metadata, NEW.public_note, NEW.private_note) THEN
        was := was || orders_attached(OLD);
        becomes := becomes || orders_attached(NEW);
    END IF;
    INSERT INTO order_events (order_id, number, type, before, after, actor, at)
        VALUES (NEW.id, NEW.version, CASE WHEN NEW.status = OLD.status THEN 'changed' ELSE 'moved' END,
                was, becomes, 'database', NEW.updated_at)
        ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;

CREATE FUNCTION public.orders_note_metadata() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    IF octet_length(NEW.metadata::text) > 16384 THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', CONSTRAINT = 'metadata_is_small',
            MESSAGE = 'the metadata of an order are at most 16 KiB as they are stored';
    END IF;
    IF TG_OP = 'UPDATE' THEN
        DELETE FROM order_metadata m USING jsonb_each_text(OLD.metadata) e
            WHERE m.order_id = OLD.id AND m.key = e.key AND m.value = e.value;
    END IF;
    INSERT INTO order_metadata (key, value, order_id)
        SELECT key, value #>> '{}', NEW.id FROM jsonb_each(NEW.metadata)
        WHERE jsonb_typeof(value) = 'string' AND octet_length(value #>> '{}') <= 2000;  -- what an index takes
    RETURN NULL;
END $$;

CREATE FUNCTION public.orders_pasts_47bd992b9977(p_ids uuid[], p_seen_channel text, p_seen_customer bigint, p_sees_private boolean, p_versions integer[]) RETURNS SETOF record
    LANGUAGE plpgsql STABLE
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
BEGIN
RETURN QUERY SELECT w.n, past.* FROM unnest(p_ids, p_versions)
                    WITH ORDINALITY w(id, version, n)
                CROSS JOIN LATERAL (SELECT json_build_object(
    'id', o.id, 'number', o.number, 'customer_id', o.customer_id, 'channel', o.channel, 'status', o.status,
    'items', coalesce((
        SELECT json_agg(json_build_object(
            'id', i.id, 'product_id', i.product_id, 'name', i.name, 'quantity', i.quantity,
            'unit_price', i.unit_price, 'total', i.quantity * i.unit_price,
            'cancelled', i.cancelled, 'returned', i.returned) ORDER BY i.id)
        FROM order_items i WHERE i.order_id = o.id), '[]'),
    'currency', o.currency, 'total', o.total, 'version', o.version,
    'allowed_statuses', coalesce(
        (SELECT CASE WHEN s.is_hold AND o.held_from IS NOT NULL
                THEN o.held_from || array_remove(s.allowed, o.held_from) ELSE s.allowed END
         FROM order_statuses s WHERE s.status = o.status AND NOT (o.adopted AND o.status = 'Pending')),
        CASE WHEN o.adopted THEN orders_allowed(o.status, o.held_from, true) ELSE '{}' END),
    'external_reference', o.external_reference,
    'metadata', coalesce(o.metadata, '{}'),
    'notes', json_build_object('public', o.public_note, 'private', CASE WHEN p_sees_private THEN o.private_note END),
    'created_at', to_char(o.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), 'updated_at', to_char(o.updated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))::text::json,
                (SELECT coalesce(json_object_agg(name, value), '{}') FROM (
                    SELECT DISTINCT ON (m.name) m.name, m.value
                    FROM (SELECT e.number, CASE WHEN p_sees_private THEN e.before ELSE jsonb_set(e.before, '{notes,private}', 'null', false) END AS before
                FROM order_events e WHERE e.order_id = o.id AND e.number > w.version) later CROSS JOIN LATERAL jsonb_each(later.before - 'items') m(name, value)
                    ORDER BY m.name, later.number) members),
                (SELECT coalesce(json_object_agg(id, members), '{}') FROM (
                    SELECT id, json_object_agg(name, value) AS members FROM (
                        SELECT DISTINCT ON (line->>'id', m.name) line->>'id' AS id, m.name, m.value
                        FROM (SELECT e.number, CASE WHEN p_sees_private THEN e.before ELSE jsonb_set(e.before, '{notes,private}', 'null', false) END AS before
                FROM order_events e WHERE e.order_id = o.id AND e.number > w.version) later CROSS JOIN LATERAL jsonb_array_elements(later.before->'items') line
                        CROSS JOIN LATERAL jsonb_each(line - 'id') m(name, value)
                        ORDER BY line->>'id', m.name, later.number) found
                    GROUP BY id) lines),
                o.held_from, o.adopted,
                coalesce((SELECT to_char(e.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') FROM order_events e
                          WHERE e.order_id = o.id AND e.number = w.version), to_char(o.placed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')) FROM orders o
                    WHERE o.id = w.id AND (p_seen_customer IS NULL OR o.customer_id = p_seen_customer)
                        AND (p_seen_channel IS NULL OR o.channel = p_seen_channel))
                    past(document, members, lines, held_from, adopted, at);
END $$;

CREATE FUNCTION public.orders_purge_feed_bebb3e716eef(p_days double precision, p_most integer) RETURNS SETOF record
    LANGUAGE plpgsql
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
BEGIN
DECLARE
                head events_head;
                up_to bigint;
                latest timestamptz;
                deleted integer;
            BEGIN
                IF NOT pg_try_advisory_xact_lock(hashtext('assign_events')) THEN
                    RETURN;
                END IF;
                SELECT * INTO STRICT head FROM events_head ORDER BY position DESC LIMIT 1;
                IF head.walked_order IS NOT NULL OR head.cluster IS NULL THEN
                    RETURN QUERY SELECT 0;
                    RETURN;
                END IF;
                up_to := least(head.forgotten + p_most, head.position,
                               (SELECT min(position) FROM webhooks), (SELECT min(position) FROM relays));
                up_to := coalesce((
                    SELECT v.position - 1 FROM events v
                    JOIN order_events e ON e.order_id = v.order_id AND e.number = v.number
                    WHERE v.position > head.forgotten AND v.position <= up_to
                      AND e.at >= now() - p_days * interval '1 day'
                    ORDER BY v.position LIMIT 1), up_to);
                latest := (SELECT max(e.at) FROM events v
                           JOIN order_events e ON e.order_id = v.order_id AND e.number = v.number
                           WHERE v.position > head.forgotten AND v.position <= up_to);
                DELETE FROM events WHERE position > head.forgotten AND position <= up_to;
                GET DIAGNOSTICS deleted = ROW_COUNT;
                IF deleted > 0 THEN
                    UPDATE events_head
                    SET forgotten = up_to, forgotten_at = greatest(forgotten_at, latest),
                        forgotten_xact = greatest(forgotten_xact, pg_snapshot_xmin(head.seen))
                    WHERE position = head.position;
                END IF;
                RETURN QUERY SELECT deleted;
            END;
END $$;

CREATE FUNCTION public.orders_record_delivered_e95ada448ae1(p_at timestamp with time zone[], p_id bigint[], p_ms integer[], p_status integer[], p_webhook uuid) RETURNS void
    LANGUAGE plpgsql
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
BEGIN
BEGIN
                PERFORM FROM webhooks WHERE id = p_webhook FOR NO KEY UPDATE;
                UPDATE webhook_deliveries d
                    SET state = 'delivered', last_at = e.at, last_status = e.status, last_ms = e.ms,
                        last_error = NULL, last_reply = NULL
                    FROM unnest(p_id, p_at, p_status, p_ms)
                        e(id, at, status, ms)
                    WHERE d.id = e.id AND d.state <> 'delivered';
                UPDATE webhooks SET failed_in_row = 0, failing_since = NULL, told_until = NULL, succeeded_at = now()
                    WHERE id = p_webhook AND (failed_in_row > 0
                        OR coalesce(succeeded_at, '-infinity') < now() - interval '1 second');
            END;
END $$;

CREATE FUNCTION public.orders_require(holds boolean, why text) RETURNS void
    LANGUAGE plpgsql
    AS $$
BEGIN
    IF holds IS NOT TRUE THEN
        RAISE EXCEPTION USING MESSAGE = why, ERRCODE = 'OR001';
    END IF;
END $$;

CREATE FUNCTION public.orders_seen_documents_5764e5c63939(p_channels text[], p_customers bigint[], p_ids uuid[], p_see_private boolean[]) RETURNS SETOF record
    LANGUAGE plpgsql STABLE
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
BEGIN
RETURN QUERY SELECT seer.n, o.version, json_build_object(
    'id', o.id, 'number', o.number, 'customer_id', o.customer_id, 'channel', o.channel, 'status', o.status,
    'items', coalesce((
        SELECT json_agg(json_build_object(
            'id', i.id, 'product_id', i.product_id, 'name', i.name, 'quantity', i.quantity,
            'unit_price', i.unit_price, 'total', i.quantity * i.unit_price,
            'cancelled', i.cancelled, 'returned', i.returned) ORDER BY i.id)
        FROM order_items i WHERE i.order_id = o.id), '[]'),
    'currency', o.currency, 'total', o.total, 'version', o.version,
    'allowed_statuses', coalesce(
        (SELECT CASE WHEN s.is_hold AND o.held_from IS NOT NULL
                THEN o.held_from || array_remove(s.allowed, o.held_from) ELSE s.allowed END
         FROM order_statuses s WHERE s.status = o.status AND NOT (o.adopted AND o.status = 'Pending')),
        CASE WHEN o.adopted THEN orders_allowed(o.status, o.held_from, true) ELSE '{}' END),
    'external_reference', o.external_reference,
    'metadata', coalesce(o.metadata, '{}'),
    'notes', json_build_object('public', o.public_note, 'private', CASE WHEN seer.sees_private THEN o.private_note END),
    'created_at', to_char(o.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), 'updated_at', to_char(o.updated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))::text
                FROM unnest(p_ids, p_customers, p_channels, p_see_private)
                    WITH ORDINALITY seer(id, customer_id, channel, sees_private, n)
                JOIN orders o ON o.id = seer.id AND (seer.customer_id IS NULL OR o.customer_id = seer.customer_id)
                    AND (seer.channel IS NULL OR o.channel = seer.channel);
END $$;

CREATE FUNCTION public.orders_settle_28252010f5a7(p_actors text[], p_author_of uuid[], p_batch uuid, p_carries_due boolean, p_decided uuid[], p_ended bigint[], p_failed uuid[], p_failures text[], p_freed text[], p_hand_over boolean, p_has_failures boolean, p_horizon double precision, p_key_orders uuid[], p_landed bigint[], p_order_keys text[], p_outcome_bodies text[], p_outcome_keys text[], p_outcome_statuses smallint[], p_placed uuid[], p_quiet bigint[], p_reasons text[], p_refused bigint[], p_requests text[], p_took bigint[]) RETURNS SETOF record
    LANGUAGE plpgsql
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
BEGIN
PERFORM orders_require((
                SELECT count(*) FROM (SELECT FROM stock_claims
                    WHERE batch_id = p_batch AND product_id = ANY(p_ended)
                    ORDER BY product_id FOR UPDATE) c)
                = cardinality(p_ended) AND (
                SELECT count(*) FROM (SELECT FROM orders
                    WHERE batch_id = p_batch AND status = 'Pending' AND id = ANY(p_decided) FOR UPDATE) o)
                = cardinality(p_decided), 'the batch was taken over');
IF cardinality(p_placed) > 0 THEN
UPDATE orders SET status = 'Ordered', placed_at = now(), updated_at = now()
                WHERE id = ANY(p_placed);
            INSERT INTO cart_closings (order_id, customer_id, cart_id, retry_at)
                SELECT id, customer_id, cart_id, now() + interval '5 s' FROM orders
                WHERE id = ANY(p_placed);
END IF;
IF cardinality(p_failed) > 0 THEN
UPDATE orders o SET status = 'Failed', failure = f.failure, updated_at = now()
                FROM unnest(p_failed, p_failures) f(id, failure) WHERE o.id = f.id;
END IF;
IF cardinality(p_author_of) > 0 THEN
INSERT INTO order_events (order_id, number, type, before, after, actor, reason, request_id)
                SELECT id, 1, CASE WHEN reason IS NULL THEN 'placed' ELSE 'failed' END,
                       '{"status": "Pending"}',
                       CASE WHEN reason IS NULL THEN '{"status": "Ordered"}' ELSE '{"status": "Failed"}' END::jsonb,
                       actor, reason, request_id
                FROM unnest(p_author_of, p_actors, p_reasons, p_requests)
                    e(id, actor, reason, request_id);
END IF;
IF p_has_failures THEN
INSERT INTO stock_returns (order_id, product_id, quantity)
                SELECT i.order_id, i.product_id, i.quantity FROM orders o JOIN order_items i ON i.order_id = o.id
                WHERE o.batch_id = p_batch AND o.status = 'Failed' AND i.product_id = ANY(p_took)
                ON CONFLICT DO NOTHING;
END IF;
IF p_carries_due THEN
UPDATE stock_returns SET returned_at = now()
                WHERE batch_id = p_batch AND product_id = ANY(p_landed) AND returned_at IS NULL;
            UPDATE stock_returns SET batch_id = NULL, retry_at = now() + interval '5 s'
                WHERE batch_id = p_batch AND product_id = ANY(p_refused) AND returned_at IS NULL;
END IF;
IF cardinality(p_quiet) > 0 THEN
INSERT INTO stock_record (product_id, batch_id, kind, before, after)
                SELECT product_id, batch_id, CASE WHEN is_correction THEN 'corrected' ELSE 'moved' END, before, after
                FROM stock_claims WHERE batch_id = p_batch AND product_id = ANY(p_quiet);
            UPDATE stock_claims SET batch_id = NULL, lease_until = NULL, before = NULL, after = NULL,
                                    is_correction = false, lands_until = now() + p_horizon * interval '1 s'
                WHERE batch_id = p_batch AND product_id = ANY(p_quiet);
END IF;
IF cardinality(p_ended) > 0 THEN
WITH ended AS (
                DELETE FROM stock_claims WHERE batch_id = p_batch AND product_id = ANY(p_ended)
                RETURNING product_id, is_correction, before, after)
            INSERT INTO stock_record (product_id, batch_id, kind, before, after)
                SELECT product_id, p_batch, CASE WHEN is_correction THEN 'corrected' ELSE 'moved' END, before, after
                FROM ended WHERE product_id = ANY(p_landed) AND before <> after;
END IF;
IF p_hand_over THEN
UPDATE stock_claims SET lease_until = now(), lands_until = now() + p_horizon * interval '1 s'
                WHERE batch_id = p_batch;
END IF;
IF cardinality(p_key_orders) > 0 THEN
UPDATE idempotency_keys k SET status = 201, body = json_build_object(
    'id', o.id, 'number', o.number, 'customer_id', o.customer_id, 'channel', o.channel, 'status', o.status,
    'items', coalesce((
        SELECT json_agg(json_build_object(
            'id', i.id, 'product_id', i.product_id, 'name', i.name, 'quantity', i.quantity,
            'unit_price', i.unit_price, 'total', i.quantity * i.unit_price,
            'cancelled', i.cancelled, 'returned', i.returned) ORDER BY i.id)
        FROM order_items i WHERE i.order_id = o.id), '[]'),
    'currency', o.currency, 'total', o.total, 'version', o.version,
    'allowed_statuses', coalesce(
        (SELECT CASE WHEN s.is_hold AND o.held_from IS NOT NULL
                THEN o.held_from || array_remove(s.allowed, o.held_from) ELSE s.allowed END
         FROM order_statuses s WHERE s.status = o.status AND NOT (o.adopted AND o.status = 'Pending')),
        CASE WHEN o.adopted THEN orders_allowed(o.status, o.held_from, true) ELSE '{}' END),
    'external_reference', o.external_reference,
    'metadata', coalesce(o.metadata, '{}'),
    'notes', json_build_object('public', o.public_note, 'private', CASE WHEN true THEN o.private_note END),
    'created_at', to_char(o.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), 'updated_at', to_char(o.updated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))::text, order_id = o.id
                FROM unnest(p_key_orders, p_order_keys) n(id, key) JOIN orders o USING (id)
                WHERE k.key = n.key;
END IF;
IF cardinality(p_outcome_keys) > 0 THEN
UPDATE idempotency_keys k SET status = n.status, body = n.body
        FROM unnest(p_outcome_keys, p_outcome_statuses, p_outcome_bodies)
            n(key, status, body)
        WHERE k.key = n.key AND k.batch_id = p_batch AND k.status IS NULL;
END IF;
IF cardinality(p_freed) > 0 THEN
DELETE FROM idempotency_keys WHERE batch_id = p_batch AND status IS NULL AND key = ANY(p_freed);
END IF;
IF cardinality(p_placed) > 0 THEN
RETURN QUERY SELECT o.id, o.version, json_build_object(
    'id', o.id, 'number', o.number, 'customer_id', o.customer_id, 'channel', o.channel, 'status', o.status,
    'items', coalesce((
        SELECT json_agg(json_build_object(
            'id', i.id, 'product_id', i.product_id, 'name', i.name, 'quantity', i.quantity,
            'unit_price', i.unit_price, 'total', i.quantity * i.unit_price,
            'cancelled', i.cancelled, 'returned', i.returned) ORDER BY i.id)
        FROM order_items i WHERE i.order_id = o.id), '[]'),
    'currency', o.currency, 'total', o.total, 'version', o.version,
    'allowed_statuses', coalesce(
        (SELECT CASE WHEN s.is_hold AND o.held_from IS NOT NULL
                THEN o.held_from || array_remove(s.allowed, o.held_from) ELSE s.allowed END
         FROM order_statuses s WHERE s.status = o.status AND NOT (o.adopted AND o.status = 'Pending')),
        CASE WHEN o.adopted THEN orders_allowed(o.status, o.held_from, true) ELSE '{}' END),
    'external_reference', o.external_reference,
    'metadata', coalesce(o.metadata, '{}'),
    'notes', json_build_object('public', o.public_note, 'private', CASE WHEN true THEN o.private_note END),
    'created_at', to_char(o.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), 'updated_at', to_char(o.updated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))::text FROM orders o WHERE o.id = ANY(p_placed);
END IF;
END $$;

CREATE FUNCTION public.orders_tick_webhook_feb07e11c1a9(p_lease_s double precision, p_max_waiting integer, p_probe_after integer, p_stride integer, p_webhook uuid) RETURNS SETOF record
    LANGUAGE plpgsql
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
BEGIN
DECLARE
        w webhooks;
        room integer;
    BEGIN
        SELECT * INTO w FROM webhooks WHERE id = p_webhook AND status = 'enabled' FOR NO KEY UPDATE SKIP LOCKED;
        IF NOT FOUND THEN
            RETURN;
        END IF;

        IF (SELECT count(*) FROM (SELECT FROM webhook_deliveries
                WHERE webhook_id = w.id AND state IN ('waiting', 'sending') LIMIT p_max_waiting) d)
                < p_max_waiting THEN
            WITH passed AS MATERIALIZED (
                SELECT position, order_id, number, type FROM events
                WHERE position > w.position ORDER BY position LIMIT p_stride),
            added AS (
                INSERT INTO webhook_deliveries (webhook_id, position, order_id, number, type)
                SELECT w.id, e.position, e.order_id, e.number, 'order.' || e.type FROM passed e
                WHERE (('order.' || e.type) = ANY (w.types) OR '*' = ANY (w.types)
                       OR ('order.*' = ANY (w.types) AND e.type <> 'failed'))
                  AND (w.channel IS NULL OR w.channel = (SELECT o.channel FROM orders o WHERE o.id = e.order_id))
                ORDER BY e.position
                ON CONFLICT DO NOTHING)
            UPDATE webhooks SET position = last.position
                FROM (SELECT max(position) AS position FROM passed) last
                WHERE id = w.id AND last.position IS NOT NULL;
        END IF;

        IF w.slow_until > now() THEN
            RETURN;
        END IF;
        room := CASE WHEN w.failed_in_row >= p_probe_after THEN 1 ELSE w.concurrency END
            - (SELECT count(*) FROM webhook_deliveries d
               WHERE d.webhook_id = w.id AND d.state = 'sending' AND d.due_at > now());
        IF room <= 0 THEN
            RETURN;
        END IF;

        RETURN QUERY WITH due AS MATERIALIZED (
            SELECT d.id FROM webhook_deliveries d
            WHERE d.webhook_id = w.id AND d.state IN ('waiting', 'sending') AND d.due_at <= now()
              AND (w.ordering = 'none' OR d.position IS NULL OR NOT EXISTS (
                    SELECT FROM webhook_deliveries e
                    WHERE e.order_id = d.order_id AND e.position < d.position
                      AND e.webhook_id IS NOT DISTINCT FROM d.webhook_id AND e.state IN ('waiting', 'sending')))
            ORDER BY d.due_at, d.id LIMIT room)
        UPDATE webhook_deliveries d
            SET state = 'sending', attempts = d.attempts + 1, due_at = now() + p_lease_s * interval '1 second',
                first_at = coalesce(d.first_at, now())
            FROM due WHERE d.id = due.id
            RETURNING d.id, d.type, d.attempts::integer, d.created_at, d.position, d.order_id, d.number,
                      d.notice::text;
    END;
END $$;

CREATE FUNCTION public.product_sales_of(day date) RETURNS TABLE(product_id bigint, orders bigint, units numeric, revenue numeric)
    LANGUAGE sql STABLE
    AS $$
    SELECT i.product_id, count(*), sum(i.quantity), sum(i.quantity * i.unit_price::numeric)
    FROM orders o JOIN order_items i ON i.order_id = o.id
    WHERE o.id >= order_id_at(day) AND o.id < order_id_at(day + 1) AND order_is_sold(o.status, o.placed_at)
    GROUP BY i.product_id
$$;

CREATE FUNCTION public.sales_note_change() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
DECLARE
    changed uuid;
BEGIN
    IF TG_TABLE_NAME = 'orders' THEN changed := NEW.id; ELSE changed := NEW.order_id; END IF;
    IF order_created_at(changed) < now() - interval '1 day' THEN
        INSERT INTO sales_changes (day) VALUES ((order_created_at(changed) AT TIME ZONE 'UTC')::date);
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION public.sales_of(day date) RETURNS TABLE(orders bigint, units numeric, revenue numeric)
    LANGUAGE sql STABLE
    AS $$
    WITH sold AS MATERIALIZED (
        SELECT o.id, o.total FROM orders o WHERE o.id >= order_id_at(day) AND o.id < order_id_at(day + 1)
            AND order_is_sold(o.status, o.placed_at))
    SELECT count(*), coalesce((SELECT sum(i.quantity) FROM sold s JOIN order_items i ON i.order_id = s.id), 0),
           coalesce(sum(total), 0) FROM sold
$$;

CREATE FUNCTION public.standings() RETURNS TABLE(status text, first date, last date, orders bigint)
    LANGUAGE sql STABLE
    AS $$
    WITH counted AS (SELECT coalesce(max(day), '1969-12-31') AS last FROM standing_days),
    days AS (
        SELECT day, status, orders FROM standing_days
        UNION ALL SELECT day, status, change FROM standing_changes, counted WHERE day <= counted.last),
    spans AS (
        SELECT greatest(span.first, counted.last + 1) AS first, span.last FROM counted,
            (VALUES ('1970-01-01'::date, '1970-01-01'::date), ('1970-01-02', '9999-12-30')) AS span (first, last)
        WHERE span.last > counted.last)
    SELECT status, day, day, sum(orders)::bigint FROM days GROUP BY status, day HAVING sum(orders) > 0
    UNION ALL
    SELECT s.status, spans.first, spans.last, count(*)
    FROM spans CROSS JOIN LATERAL standings_between(spans.first, spans.last) s GROUP BY 1, 2, 3
$$;

CREATE FUNCTION public.standings_between(first date, last date) RETURNS TABLE(status text, since timestamp with time zone)
    LANGUAGE sql STABLE
    AS $$
    SELECT o.status, o.placed_at FROM orders o
    WHERE o.id >= order_id_at(first) AND o.id < order_id_at(last + 1) AND (o.moved_at IS NULL OR o.adopted)
        AND (o.status NOT IN ('Pending', 'Failed') OR o.adopted)
    UNION ALL
    SELECT o.status, o.moved_at FROM order_statuses_there_are() s JOIN orders o ON o.status = s.status
    WHERE o.status NOT IN ('Pending', 'Failed') AND NOT o.adopted
        AND o.moved_at >= first::timestamp AT TIME ZONE 'UTC' AND o.moved_at < (last + 1)::timestamp AT TIME ZONE 'UTC'
$$;

CREATE FUNCTION public.standings_note_change() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    INSERT INTO standing_changes (day, status, change)
        SELECT day, status, change
        FROM (VALUES (order_stands_since(OLD.id, OLD.moved_at, OLD.adopted), OLD.status, OLD.adopted, -1),
                     (order_stands_since(NEW.id, NEW.moved_at, NEW.adopted), NEW.status, NEW.adopted, 1))
             AS v (day, status, adopted, change)
        WHERE day < now() - interval '1 day' AND (status NOT IN ('Pending', 'Failed') OR adopted);
    RETURN NULL;
END $$;

CREATE FUNCTION public.stock_record_is_for_ever() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    RAISE EXCEPTION 'stock_record is only ever added to';
END $$;

CREATE FUNCTION public.sum_up_a_day() RETURNS date
    LANGUAGE plpgsql
    AS $$
DECLARE
    first date := (SELECT order_created_at(id) AT TIME ZONE 'UTC' FROM orders
                   WHERE id >= order_id_at('1971-01-01') ORDER BY id LIMIT 1)::date;
    last date := (now() AT TIME ZONE 'UTC' - interval '49 hours')::date;
    stale date;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtext('sum_up_a_day')) THEN
        RETURN NULL;
    END IF;
    SELECT d INTO stale FROM generate_series(first, last, interval '1 day') d
        WHERE NOT EXISTS (SELECT FROM sales_days s WHERE s.day = d::date)
           OR EXISTS (SELECT FROM sales_changes c WHERE c.day = d::date)
        ORDER BY d DESC LIMIT 1;
    IF stale IS NOT NULL THEN
        DELETE FROM sales_changes WHERE day = stale;
        DELETE FROM sales_of_products WHERE day = stale;
        INSERT INTO sales_of_products SELECT stale, * FROM product_sales_of(stale);
        INSERT INTO sales_days SELECT stale, * FROM sales_of(stale)
            ON CONFLICT (day) DO UPDATE
            SET orders = excluded.orders, units = excluded.units, revenue = excluded.revenue;
    END IF;
    RETURN stale;
END $$;
