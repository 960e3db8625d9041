<?php

declare(strict_types=1);

namespace PMP\Analytics\Tests;

use PMP\Analytics\Queue\Kind;
use WC_Data;
use WC_DateTime;
use WC_Order;
use WC_Order_Item_Product;
use WC_Order_Refund;

/**
 * The mesh compares its ledger with the shop's orders.
 */
final class OrdersRouteTest extends SiteTestCase
{
    use SignedCalls;

    private const ALL = ['after' => 0, 'until' => 4_000_000_000];

    protected function setUp(): void
    {
        parent::setUp();
        $this->share_secret();
    }

    public function test_the_answers_are_those_that_the_mesh_is_tested_with(): void
    {
        $paid = new WC_DateTime('2026-11-22T10:21:00Z');
        $id = $this->order(['status' => 'refunded', 'total' => '30.00', 'total_tax' => '4.79', 'date_paid' => $paid]);
        $this->refund($id, '10.50');
        $this->refund($id, '19.50');
        $trashed = $this->order(['status' => 'completed', 'date_paid' => $paid]);
        $this->trash($trashed);

        $list = $this->signed_call('/pmp/v1/orders', 'orders.list', self::ALL);
        $read = $this->signed_call('/pmp/v1/orders', 'orders.read', ['orders' => [(string) $id, '999', (string) $trashed]]);

        self::assertSame([200, 200], [$list->get_status(), $read->get_status()]);
        $golden = dirname(__DIR__) . '/orders-route.json';
        $answers = ['orders.list' => $list->get_data(), 'orders.read' => $read->get_data()];
        self::assertJsonStringEqualsJsonFile($golden, (string) wp_json_encode($answers));
    }

    public function test_every_order_is_listed_once_however_many_are_of_one_second(): void
    {
        $ids = [];
        foreach (range(0, 249) as $number) {
            $ids[] = $this->order(['date_created' => new WC_DateTime('2026-11-22T10:20:0' . intdiv($number, 120) . 'Z')]);
        }
        $read = [];
        $next = ['after' => 0, 'seen' => []];
        for ($pages = 0; $next !== null; ++$pages) {
            $answer = $this->page(['until' => self::ALL['until']] + $next);
            array_push($read, ...array_column($answer['orders'], 'order_id'));
            $next = $answer['next'];
        }
        sort($read, SORT_NUMERIC);
        self::assertSame(array_map(strval(...), $ids), $read);
        self::assertSame(3, $pages);
    }

    public function test_a_period_begins_with_its_first_second_and_ends_before_its_last(): void
    {
        foreach (['10:00:00', '10:00:01', '10:00:02', '10:00:03'] as $time) {
            $this->order(['date_created' => new WC_DateTime("2026-11-22T{$time}Z")]);
        }
        $at = static fn (string $time): int => (int) strtotime("2026-11-22T{$time}Z");
        $answer = $this->page(['after' => $at('10:00:01'), 'until' => $at('10:00:03')]);
        self::assertSame(['2026-11-22T10:00:01Z', '2026-11-22T10:00:02Z'], array_column($answer['orders'], 'timestamp'));
        self::assertNull($answer['next']);
    }

    public function test_a_slow_shop_answers_with_what_it_has_read_in_time(): void
    {
        $this->order([]);
        $this->order([]);
        $slow = fn (array $statuses): array => [$this->clock->move(20), $statuses][1];
        add_filter('woocommerce_order_is_paid_statuses', $slow);
        $this->order(['status' => 'custom']);
        $first = $this->page(self::ALL);
        remove_filter('woocommerce_order_is_paid_statuses', $slow);
        self::assertSame(['3'], array_column($first['orders'], 'order_id'));
        self::assertSame(['3', '2', '1'], array_column($this->everything($first), 'order_id'));
    }

    public function test_drafts_are_neither_listed_nor_read(): void
    {
        $draft = $this->order(['status' => 'checkout-draft']);
        self::assertSame([], $this->page(self::ALL)['orders']);
        $read = $this->signed_call('/pmp/v1/orders', 'orders.read', ['orders' => [(string) $draft, 'x', [], '0', null]]);
        self::assertSame([], $read->get_data()['orders']);
    }

    public function test_what_is_read_is_what_the_plugin_reports_and_nothing_changes_by_it(): void
    {
        $id = $this->order(['status' => 'completed', 'total' => '30.00']);
        $this->refund($id, '10.50');
        $this->plugin->handle_woocommerce_purchase($id);
        $kept = WC_Data::$kept;

        $read = $this->signed_call('/pmp/v1/orders', 'orders.read', ['orders' => [(string) $id]])->get_data()['orders'][0];

        self::assertSame($kept, WC_Data::$kept);
        [$purchase] = $this->outbox(Kind::Purchase);
        [$refund] = $this->outbox(Kind::Refund);
        self::assertEquals([$purchase['payload'], [$refund['payload']]], [$read['purchase'], $read['refunds']]);
        self::assertCount(2, $this->outbox());
    }

    public function test_a_change_that_was_not_reported_has_the_id_that_its_report_will_have(): void
    {
        $id = $this->order(['status' => 'processing', 'total' => '30.00']);
        $this->plugin->handle_woocommerce_purchase($id);
        $order = new WC_Order($id);
        $order->set_props(['total' => '31.00']);
        $order->save();

        $read = $this->signed_call('/pmp/v1/orders', 'orders.read', ['orders' => [(string) $id]])->get_data()['orders'][0];
        $this->plugin->handle_woocommerce_purchase($id);

        self::assertSame($this->outbox(Kind::Purchase)[1]['id'], $read['purchase']['id']);
    }

    public function test_only_the_mesh_may_ask(): void
    {
        $this->order([]);
        foreach (['orders.list' => self::ALL, 'orders.read' => ['orders' => ['1']]] as $type => $data) {
            $forged = ['webhook-signature' => 'v1,' . base64_encode(str_repeat('x', 32))];
            $refused = $this->signed_call('/pmp/v1/orders', $type, $data, $forged);
            self::assertSame([401, 'pmp_unsigned'], [$refused->get_status(), $refused->get_data()['code']]);
        }
    }

    /**
     * @return array<string, array{string, array<string, mixed>}>
     */
    public static function unreadable(): array
    {
        return [
            'another type' => ['person.erased', self::ALL],
            'no beginning' => ['orders.list', ['until' => 1]],
            'no end' => ['orders.list', ['after' => 1]],
            'no numbers' => ['orders.read', []],
            'too many numbers' => ['orders.read', ['orders' => range(1, 51)]],
        ];
    }

    /**
     * @dataProvider unreadable
     * @param array<string, mixed> $data
     */
    public function test_what_can_not_be_read_is_refused(string $type, array $data): void
    {
        self::assertSame(400, $this->signed_call('/pmp/v1/orders', $type, $data)->get_status());
    }

    /**
     * @param array<string, mixed> $fields
     */
    private function order(array $fields): int
    {
        $order = new WC_Order();
        $item = new WC_Order_Item_Product();
        $item->set_props(['name' => 'PMP exam preparation', 'product_id' => 101, 'total' => '30.00']);
        $address = ['first_name' => 'Ada', 'email' => 'ada@example.org', 'country' => 'DE'];
        $order->set_props($fields + ['billing' => $address, 'payment_method' => 'stripe', 'items' => [$item], 'total' => '30.00']);
        return $order->save();
    }

    private function refund(int $order, string $amount): void
    {
        $refund = new WC_Order_Refund();
        $refund->set_props(['parent' => $order, 'amount' => $amount]);
        $refund->save();
    }

    private function trash(int $id): void
    {
        $order = new WC_Order($id);
        $order->set_props(['status' => 'trash']);
        $order->save();
    }

    /**
     * @param array<string, mixed> $data
     * @return array<string, mixed>
     */
    private function page(array $data): array
    {
        $answer = $this->signed_call('/pmp/v1/orders', 'orders.list', $data);
        self::assertSame(200, $answer->get_status());
        return $answer->get_data();
    }

    /**
     * @param array<string, mixed> $page
     * @return list<array<string, mixed>>
     */
    private function everything(array $page): array
    {
        $orders = $page['orders'];
        while ($page['next'] !== null) {
            $page = $this->page(['until' => self::ALL['until']] + $page['next']);
            array_push($orders, ...$page['orders']);
        }
        return $orders;
    }
}
