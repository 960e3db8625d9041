<?php

/**
 * The shop's products: two courses and a guide.
 */

declare(strict_types=1);

class WC_Product
{
    public const SHELF = [
        101 => ['PMP Exam Course', '199.00', 'Thirty-five hours, all domains.'],
        102 => ['PMP Practice Exams', '49.00', 'Four times 180 questions.'],
        103 => ['PMP Study Guide', '19.00', 'The book of the course.'],
    ];

    public function __construct(private readonly int $id)
    {
    }

    public function get_id(): int
    {
        return $this->id;
    }

    public function get_name(): string
    {
        return self::SHELF[$this->id][0];
    }

    public function get_price(): string
    {
        return self::SHELF[$this->id][1];
    }

    public function get_price_html(): string
    {
        return "<span class=\"amount\">\${$this->get_price()}</span>";
    }

    public function get_short_description(): string
    {
        return self::SHELF[$this->id][2];
    }
}

/**
 * @param array<string, mixed> $query
 * @return list<WC_Product>
 */
function wc_get_products(array $query): array
{
    $ids = array_slice(array_keys(WC_Product::SHELF), 0, $query['limit'] ?? null);
    return array_map(static fn (int $id): WC_Product => new WC_Product($id), $ids);
}

function wc_get_checkout_url(): string
{
    return home_url('/checkout/');
}
