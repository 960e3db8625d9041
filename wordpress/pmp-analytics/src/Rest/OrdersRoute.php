<?php

declare(strict_types=1);

namespace PMP\Analytics\Rest;

use PMP\Analytics\Api\Webhook;
use PMP\Analytics\Capture\OrderList;
use PMP\Analytics\Clock;
use PMP\Analytics\Payload\Clean;
use PMP_Config;
use WP_REST_Request;
use WP_REST_Response;

/**
 * POST pmp/v1/orders: the mesh compares its ledger with the orders of this shop. The call `orders.list` asks for the amounts of a
 * period, page by page, and `orders.read` for the reports of single orders, as this plugin would send them.
 */
final class OrdersRoute extends SignedRoute
{
    public const PATH = '/orders';

    /** A page ends after this time, so that slow shops answer, too. */
    private const SECONDS = 8.0;

    private const MAX_ORDERS = 50;

    public function __construct(PMP_Config $config, private readonly OrderList $orders, Clock $clock)
    {
        parent::__construct($config, $clock);
    }

    public function answer(WP_REST_Request $request): WP_REST_Response
    {
        if (! function_exists('wc_get_orders')) {
            // No empty list: the mesh would take all orders for deleted.
            return Refusal::of(503, 14, 'WooCommerce is not active.');
        }
        $call = Webhook::of($request)->content();
        $answer = match ($call['type'] ?? '') {
            'orders.list' => $this->page($call['data']),
            'orders.read' => $this->reports($call['data']),
            default => null,
        };
        if ($answer === null) {
            return Refusal::of(400, 3, 'The body is {"type": "orders.list", "data": {"after": ..., "until": ...}} or '
                . '{"type": "orders.read", "data": {"orders": [...]}} with at most ' . self::MAX_ORDERS . ' numbers.');
        }
        return new WP_REST_Response(
            $answer + ['read_at' => Clean::time($this->clock->now())],
            200,
            ['Cache-Control' => 'no-store'],
        );
    }

    /**
     * @param array<mixed> $data
     * @return array<string, mixed>|null
     */
    private function page(array $data): ?array
    {
        if (! is_int($data['after'] ?? null) || ! is_int($data['until'] ?? null)) {
            return null;
        }
        $seen = array_values(array_filter((array) ($data['seen'] ?? []), is_int(...)));
        return $this->orders->page(max(0, $data['after']), $seen, $data['until'], $this->clock->now() + self::SECONDS);
    }

    /**
     * @param array<mixed> $data
     * @return array<string, mixed>|null
     */
    private function reports(array $data): ?array
    {
        if (! is_array($data['orders'] ?? null) || count($data['orders']) > self::MAX_ORDERS) {
            return null;
        }
        $reports = array_map(fn (mixed $id): ?array => $this->orders->reports(Clean::number($id)), $data['orders']);
        return ['orders' => array_values(array_filter($reports))];
    }
}
