<?php

/**
 * Orders, kept in memory. An object is a copy of what is kept until it is saved, as with the real ones.
 */

declare(strict_types=1);

class WC_DateTime extends DateTime
{
}

abstract class WC_Data
{
    /** @var array<int, array{type: string, fields: array<string, mixed>, meta: array<string, mixed>}> */
    public static array $kept = [];

    protected const TYPE = '';

    /** What hooks call it. */
    protected const NAME = '';

    /** @var array<string, mixed> */
    protected array $fields = [];

    /** @var array<string, mixed> */
    protected array $meta = [];

    public function __construct(protected int $id = 0)
    {
        $this->fields = self::$kept[$id]['fields'] ?? [];
        $this->meta = self::$kept[$id]['meta'] ?? [];
    }

    public function get_id(): int
    {
        return $this->id;
    }

    public function get_meta(string $name): mixed
    {
        return $this->meta[$name] ?? '';
    }

    public function update_meta_data(string $name, mixed $value): void
    {
        $this->meta[$name] = $value;
    }

    public function delete_meta_data(string $name): void
    {
        unset($this->meta[$name]);
    }

    public function save_meta_data(): void
    {
        self::$kept[$this->id]['meta'] = $this->meta;
    }

    /**
     * @param array<string, mixed> $fields
     */
    public function set_props(array $fields): void
    {
        $this->fields = array_merge($this->fields, $fields);
    }

    public function save(): int
    {
        $this->id = $this->id ?: (self::$kept === [] ? 1 : max(array_keys(self::$kept)) + 1);
        self::$kept[$this->id] = ['type' => static::TYPE, 'fields' => $this->fields, 'meta' => $this->meta];
        return $this->id;
    }

    public function delete(bool $force = false): bool
    {
        $answer = apply_filters('woocommerce_pre_delete_' . static::NAME, null, $this, $force);
        if ($answer === null) {
            unset(self::$kept[$this->id]);
        }
        return $answer ?? true;
    }

    protected function field(string $name, mixed $default = ''): mixed
    {
        return $this->fields[$name] ?? $default;
    }
}

class WC_Order extends WC_Data
{
    protected const TYPE = 'shop_order';

    protected const NAME = 'order';

    /** @var array<int, WC_Order> What WooCommerce's cache gives out, whatever is kept. */
    public static array $cached = [];

    public function get_type(): string
    {
        return static::TYPE;
    }

    public function get_status(): string
    {
        return $this->field('status', 'pending');
    }

    public function is_paid(): bool
    {
        return in_array($this->get_status(), apply_filters('woocommerce_order_is_paid_statuses', ['processing', 'completed']), true);
    }

    public function get_total(): string|float
    {
        return $this->field('total', 0);
    }

    /**
     * @return list<WC_Order_Refund> Newest first.
     */
    public function get_refunds(): array
    {
        return wc_get_orders(['type' => 'shop_order_refund', 'parent' => $this->id, 'limit' => -1]);
    }

    public function get_currency(): string
    {
        return $this->field('currency', 'USD');
    }

    public function get_customer_id(): int
    {
        return $this->field('customer_id', 0);
    }

    public function get_billing_email(): string
    {
        return $this->get_address('billing')['email'] ?? '';
    }

    /**
     * @return array<string, string>
     */
    public function get_address(string $type = 'billing'): array
    {
        return $this->field($type, []);
    }

    public function get_payment_method(): string
    {
        return $this->field('payment_method');
    }

    public function get_date_created(): ?WC_DateTime
    {
        return $this->field('date_created', new WC_DateTime('2026-11-22T10:20:00Z'));
    }

    public function get_date_paid(): ?WC_DateTime
    {
        return $this->field('date_paid', null);
    }

    public function get_order_number(): string
    {
        return (string) $this->field('order_number', $this->id);
    }

    public function get_created_via(): string
    {
        return $this->field('created_via');
    }

    public function get_billing_country(): string
    {
        return $this->get_address('billing')['country'] ?? '';
    }

    public function get_total_discount(): float
    {
        return (float) $this->field('discount_total', 0);
    }

    public function get_total_tax(): string
    {
        return (string) $this->field('total_tax', '0');
    }

    public function get_shipping_total(): string
    {
        return (string) $this->field('shipping_total', '0');
    }

    /**
     * @return list<string>
     */
    public function get_coupon_codes(): array
    {
        return $this->field('coupons', []);
    }

    /**
     * @return list<WC_Order_Item_Product>
     */
    public function get_items(): array
    {
        return $this->field('items', []);
    }
}

class WC_Order_Refund extends WC_Data
{
    protected const TYPE = 'shop_order_refund';

    protected const NAME = 'order_refund';

    public function get_parent_id(): int
    {
        return $this->field('parent', 0);
    }

    public function get_amount(): string
    {
        return (string) $this->field('amount', '0.00');
    }

    public function get_reason(): string
    {
        return $this->field('reason');
    }

    /**
     * @return list<WC_Order_Item_Product>
     */
    public function get_items(): array
    {
        return $this->field('items', []);
    }

    public function get_date_created(): ?WC_DateTime
    {
        return $this->field('date_created', new WC_DateTime('2026-11-25T09:00:00Z'));
    }
}

class WC_Order_Item_Product extends WC_Data
{
    public function get_name(): string
    {
        return $this->field('name');
    }

    public function get_product_id(): int
    {
        return $this->field('product_id', 0);
    }

    public function get_variation_id(): int
    {
        return $this->field('variation_id', 0);
    }

    public function get_quantity(): int
    {
        return $this->field('quantity', 1);
    }

    public function get_total(): string
    {
        return (string) $this->field('total', '0');
    }

    public function get_total_tax(): string
    {
        return (string) $this->field('total_tax', '0');
    }
}

function wc_get_order(int $id): WC_Order|WC_Order_Refund|false
{
    return match (WC_Data::$kept[$id]['type'] ?? '') {
        'shop_order' => isset(WC_Order::$cached[$id]) ? clone WC_Order::$cached[$id] : new WC_Order($id),
        'shop_order_refund' => new WC_Order_Refund($id),
        default => false,
    };
}

function wc_get_payment_gateway_by_order(WC_Order $order): object|false
{
    return match ($order->get_payment_method()) {
        'stripe-test' => (object) ['testmode' => true],
        '' => false,
        default => (object) ['enabled' => 'yes'],
    };
}

/**
 * @param array{
 *     type: string, limit: int, status?: list<string>,
 *     orderby?: string, order?: string, exclude?: list<int>, date_created?: string, customer?: list<int|string>,
 *     parent?: int,
 * } $query
 * @return list<WC_Order>|list<WC_Order_Refund>
 */
function wc_get_orders(array $query): array
{
    if ($query['type'] === 'shop_order_refund') {
        $refunds = array_filter(WC_Data::$kept, static fn (array $kept): bool
            => $kept['type'] === 'shop_order_refund' && $kept['fields']['parent'] === $query['parent']);
        krsort($refunds);
        return array_map(static fn (int $id): WC_Order_Refund => new WC_Order_Refund($id), array_keys($refunds));
    }
    $since = (int) ltrim($query['date_created'] ?? '0', '>=');
    $found = array_filter(
        array_map(wc_get_order(...), array_keys(WC_Data::$kept)),
        static fn (object $order): bool => $order instanceof WC_Order
            && ! in_array($order->get_id(), $query['exclude'] ?? [], true)
            && array_intersect([$order->get_billing_email(), $order->get_customer_id()], $query['customer'] ?? [$order->get_customer_id()])
            && ($order->get_status() !== 'trash' || in_array('trash', $query['status'] ?? [], true))
            && $order->get_date_created()->getTimestamp() >= $since,
    );
    // Those of one second come in no order that could be relied on.
    usort($found, static fn (WC_Order $one, WC_Order $other): int
        => [$one->get_date_created(), $other->get_id()] <=> [$other->get_date_created(), $one->get_id()]);
    return array_slice($found, 0, $query['limit'] === -1 ? null : $query['limit']);
}

function wc_get_page_screen_id(string $for): string
{
    return $for === 'shop-order' ? 'woocommerce_page_wc-orders' : '';
}

/**
 * @return array<string, string>
 */
function wc_get_order_statuses(): array
{
    $names = ['pending', 'processing', 'on-hold', 'completed', 'cancelled', 'refunded', 'failed', 'checkout-draft'];
    return array_combine(array_map(static fn (string $name): string => "wc-{$name}", $names), array_map(ucfirst(...), $names));
}
