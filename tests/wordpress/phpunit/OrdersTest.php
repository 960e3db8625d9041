<?php

declare(strict_types=1);

namespace PMP\Analytics\Tests;

use PMP\Analytics\Capture\OrderPage;
use PMP\Analytics\Queue\Kind;
use WC_Data;
use WC_DateTime;
use WC_Order;
use WC_Order_Item_Product;
use WC_Order_Refund;

/**
 * Orders as WooCommerce 11 was seen to make and change them.
 */
final class OrdersTest extends SiteTestCase
{
    protected const RECORDS_VALID_PAYLOADS = true;

    /**
     * @return array<string, array{string, list<array{string, float}>}>
     */
    public static function checkouts(): array
    {
        return [
            'classic, cash on delivery' => ['browser: classic checkout, guest, COD', [['processing', 199.0]]],
            'classic, with an account' => ['browser: classic checkout with account, COD', [['processing', 199.0]]],
            'blocks, cash on delivery' => ['browser: block checkout, guest, COD', [['pending', 199.0], ['processing', 199.0]]],
            'classic, free' => ['browser: classic checkout, guest, free product', [['completed', 0.0]]],
            'blocks, free' => ['browser: block checkout, guest, free product', [['pending', 0.0], ['completed', 0.0]]],
        ];
    }

    /**
     * @dataProvider checkouts
     * @param list<array{string, float}> $expected
     */
    public function test_a_checkout_is_reported_once_for_each_state_it_reaches(string $step, array $expected): void
    {
        Trace::of_woocommerce()->play($step);

        self::assertSame($expected, $this->reports());
        self::assertSame([], $this->mesh->calls, 'nobody waits for the mesh at the checkout');
    }

    public function test_a_reloaded_thank_you_page_reports_nothing(): void
    {
        $trace = Trace::of_woocommerce();
        $trace->play('browser: thank-you page reloaded');
        $before = $this->reports();

        $trace->play('reload');
        $trace->play('reload');

        self::assertContains('woocommerce_thankyou', $trace->played);
        self::assertSame([['processing', 199.0]], $before);
        self::assertSame($before, $this->reports());
        self::assertSame([], $this->mesh->calls);
    }

    public function test_a_new_order_is_never_reported_without_its_total(): void
    {
        $trace = Trace::of_woocommerce();

        $trace->play('php: wc_create_order');
        self::assertSame([['pending', 199.0]], $this->reports());

        $trace->play('php: payment_complete');
        $trace->play('php: status completed');
        self::assertSame([['pending', 199.0], ['processing', 199.0], ['completed', 199.0]], $this->reports());
    }

    public function test_refunds_are_reported_before_the_state_they_lead_to(): void
    {
        $trace = Trace::of_woocommerce();
        foreach (['php: wc_create_order', 'php: payment_complete', 'php: status completed'] as $step) {
            $trace->play($step);
        }
        $this->drain();

        $trace->play('php: partial refund 10');
        $trace->play('php: refund of the rest');

        $order = array_slice(array_filter($this->outbox(), static fn (array $message): bool => self::is_about($message, '16')), 0, 3);
        self::assertSame(['refund', 'refund', 'purchase'], array_column($order, 'kind'));
        self::assertSame('16', $order[0]['target']);
        self::assertEquals(['17', 10, 10], self::amounts($order[0]['payload']));
        self::assertEquals(['18', 189, 199], self::amounts($order[1]['payload']));
        self::assertSame('refunded', $order[2]['payload']['payment_status']);
        self::assertSame('asked by [e-mail]', $order[0]['payload']['reason']);
    }

    public function test_an_order_that_fails_and_is_paid_later_is_reported_at_each_step(): void
    {
        $trace = Trace::of_woocommerce();

        $trace->play('php: cancelled');
        $trace->play('php: on-hold then failed then processing');
        $trace->play('php: trash');

        self::assertSame(
            [
                ['cancelled', 199.0],
                ['pending', 199.0],
                ['on-hold', 199.0],
                ['failed', 199.0],
                ['processing', 199.0],
                ['cancelled', 199.0],
            ],
            $this->reports(),
        );
    }

    /**
     * @return array<string, array{string}>
     */
    public static function changes(): array
    {
        return [
            'WooCommerce 7.9' => ['wc7.9.0-wp6.3.1-hpos-changes.jsonl'],
            'WooCommerce 9.4' => ['wc9.4.3-wp6.7.1-hpos-changes.jsonl'],
            'WooCommerce 11.0' => ['wc11.0.1-wp7.1-hpos-changes.jsonl'],
        ];
    }

    /**
     * @dataProvider changes
     */
    public function test_what_a_shop_takes_back_is_reported_by_whatever_way(string $file): void
    {
        $trace = new Trace($file, ['total' => '33.33']);
        $steps = [
            'paid' => [['processing', 33.33, '']],
            'refund of 10' => [['refund', 10.0, '10']],
            'refund deleted in wp-admin' => [['deleted refund', null, '0']],
            'refund of 11' => [['refund', 11.0, '11']],
            'refund deleted by REST' => [['deleted refund', null, '0']],
            'item added in wp-admin' => [['processing', 41.1, '']],
            'item removed in wp-admin' => [['processing', 33.33, '']],
            'trashed in wp-admin' => [['cancelled', 33.33, 'trashed']],
            'restored in wp-admin' => [['processing', 33.33, '']],
            'cancelled by REST' => [['cancelled', 33.33, '']],
            'deleted by REST' => [['cancelled', 33.33, 'deleted']],
        ];

        foreach ($steps as $step => $expected) {
            $before = count($this->outbox());
            $trace->play($step);
            self::assertEquals($expected, array_map(self::summary_of(...), array_slice($this->outbox(), $before)), $step);
        }
    }

    /**
     * Before WooCommerce 8.1 no hook says so: it shows with the order's next report.
     */
    public function test_a_refund_that_another_plugin_deletes_is_reported_with_order_tables_too(): void
    {
        foreach (array_slice(self::changes(), 1) as [$file]) {
            WC_Data::$kept = [];
            $trace = new Trace($file, ['total' => '33.33']);
            $trace->play('paid');
            $trace->play('refund of 12');
            $before = count($this->outbox());

            $trace->play('refund deleted by PHP');

            self::assertEquals([['deleted refund', null, '0']], array_map(self::summary_of(...), array_slice($this->outbox(), $before)));
        }
    }

    /**
     * @dataProvider changes
     */
    public function test_an_order_that_staff_anonymises_stays_nobodys_and_its_money_is_reported(string $file): void
    {
        $trace = new Trace($file, ['total' => '33.33']);
        $trace->play('another paid');
        self::assertStringContainsString('guest@example.org', (string) wp_json_encode($this->outbox()));

        foreach (['anonymised in wp-admin', 'refund of the anonymised order', 'trashed and deleted in wp-admin'] as $step) {
            $trace->play($step);
        }

        self::assertStringNotContainsString('example.org', (string) wp_json_encode($this->outbox()));
        self::assertStringNotContainsString('site.invalid', (string) wp_json_encode($this->outbox()));
        self::assertEquals(
            [['refund', 10.0, '10'], ['cancelled', 33.33, 'deleted']],
            array_map(self::summary_of(...), array_slice($this->outbox(), -2)),
        );
    }

    public function test_a_refund_that_is_kept_by_another_plugin_stays(): void
    {
        $order = $this->order(['status' => 'processing', 'total' => '100.00']);
        $order->save();
        $refund = $this->refund($order->get_id(), '40.00');
        do_action('woocommerce_order_refunded', $order->get_id());
        $keep = static fn (): bool => false;
        add_filter('woocommerce_pre_delete_order_refund', $keep);

        self::assertFalse((new WC_Order_Refund($refund))->delete(true));
        remove_filter('woocommerce_pre_delete_order_refund', $keep);
        $this->end_of_request();

        self::assertCount(1, $this->outbox(Kind::Refund));
    }

    public function test_while_the_mesh_is_away_the_checkout_works_and_each_order_arrives_once(): void
    {
        $this->mesh->mood = 'hanging';
        $trace = Trace::of_woocommerce();
        foreach (self::checkouts() as [$step]) {
            $trace->play($step);
            $trace->play('reload');
        }
        self::assertSame([], $this->mesh->calls);
        $reported = array_column($this->outbox(Kind::Purchase), 'id');

        $this->drain();
        $this->clock->move(6 * 3600);
        $this->mesh->mood = 'up';
        $this->drain_with_patience();

        $calls = array_keys($this->mesh->accepted);
        $tracked = array_filter($calls, static fn (string $call): bool => str_contains($call, 'purchases/track'));
        self::assertEqualsCanonicalizing(array_map(static fn (string $id): string => "/api/v1/purchases/track {$id}", $reported), $tracked);
    }

    public function test_the_session_stays_with_the_order_when_a_payment_provider_reports_it(): void
    {
        $this->start_session();
        $_SERVER['HTTP_USER_AGENT'] = 'Mozilla/5.0';
        $_SERVER['HTTP_REFERER'] = home_url('/checkout/?key=secret&step=2');
        $order = $this->order();
        do_action('woocommerce_checkout_create_order', $order, []);
        $order->save();
        $_COOKIE = [];
        unset($_SERVER['HTTP_USER_AGENT'], $_SERVER['HTTP_REFERER']);

        $this->pay($order->get_id());

        $payload = $this->outbox(Kind::Purchase)[0]['payload'];
        self::assertSame('s-9f8e7d6c', $payload['session_id']);
        self::assertSame('spring', $payload['utm_parameters']['campaign']);
        self::assertSame(self::TAGS + [
            'user_agent' => 'Mozilla/5.0',
            'page_url' => home_url('/checkout/?step=2'),
        ], $payload['metadata']);
        self::assertSame('PARTNER7', $payload['referral_code']);
    }

    public function test_the_page_that_thanks_for_an_order_has_the_id_of_its_sale(): void
    {
        ob_start();
        foreach (['1016', '', 'x"', '0'] as $number) {
            set_query_var('order-received', $number);
            (new OrderPage())->mark();
        }
        set_query_var('order-received', '');
        self::assertSame('<div hidden data-pmp-order-event="order-1016"></div>' . "\n", ob_get_clean());
    }

    public function test_a_page_of_another_site_is_not_the_checkout(): void
    {
        $this->start_session();
        $_SERVER['HTTP_REFERER'] = 'https://elsewhere.example/checkout/';
        $order = $this->order();
        do_action('woocommerce_checkout_create_order', $order, []);
        $order->save();
        unset($_SERVER['HTTP_REFERER']);

        $this->pay($order->get_id());

        self::assertArrayNotHasKey('page_url', $this->outbox(Kind::Purchase)[0]['payload']['metadata']);
    }

    public function test_a_browsers_refusal_to_be_shared_stays_with_the_order_even_without_consent(): void
    {
        $_SERVER['HTTP_SEC_GPC'] = '1';
        $order = $this->order();
        do_action('woocommerce_checkout_create_order', $order, []);
        $order->save();
        unset($_SERVER['HTTP_SEC_GPC']);

        $this->pay($order->get_id());

        $payload = $this->outbox(Kind::Purchase)[0]['payload'];
        self::assertSame(['global_privacy_control' => true], $payload['metadata']);
        self::assertArrayNotHasKey('session_id', $payload);
    }

    public function test_an_order_of_who_denied_marketing_in_the_consent_tool_must_not_be_shared(): void
    {
        foreach (['deny' => ['global_privacy_control' => true], 'allow' => [], '' => []] as $choice => $expected) {
            $_COOKIE['wp_consent_marketing'] = $choice;
            $order = $this->order();
            do_action('woocommerce_checkout_create_order', $order, []);
            $order->save();
            $_COOKIE = [];

            $this->pay($order->get_id());

            $payload = array_values($this->outbox(Kind::Purchase));
            self::assertSame($expected, end($payload)['payload']['metadata'] ?? [], "marketing: {$choice}");
        }
    }

    public function test_a_draft_forgets_its_session_once_consent_is_withdrawn(): void
    {
        $this->start_session();
        $order = $this->order();
        $order->save();
        do_action('woocommerce_store_api_checkout_update_order_meta', $order);

        $_COOKIE = [];
        do_action('woocommerce_store_api_checkout_update_order_meta', $order);
        $this->pay($order->get_id());

        $payload = $this->outbox(Kind::Purchase)[0]['payload'];
        self::assertSame([], array_intersect_key($payload, ['session_id' => 1, 'utm_parameters' => 1, 'metadata' => 1]));
    }

    public function test_the_block_checkouts_order_keeps_its_session_without_being_saved(): void
    {
        $this->start_session();
        $order = $this->order();
        $order->save();

        do_action('woocommerce_store_api_checkout_update_order_meta', $order);
        $this->pay($order->get_id());

        self::assertSame('s-9f8e7d6c', $this->outbox(Kind::Purchase)[0]['payload']['session_id']);
    }

    public function test_an_order_is_reported_with_its_contents(): void
    {
        $course = $this->product('PMP exam preparation', 'courses');
        $guide = $this->product('Formula guide', 'guides');
        $bundle = $this->product('Both courses', '');
        update_post_meta($bundle, '_related_course', [77, '78', 'none']);
        $order = $this->order([
            'total' => '228.90',
            'currency' => 'EUR',
            'customer_id' => $this->customer(),
            'payment_method' => 'stripe',
            'order_number' => '2026-0007',
            'coupons' => ['spring10'],
            'discount_total' => '20.00',
            'total_tax' => '36.54',
            'shipping_total' => '4.90',
            'billing' => ['email' => 'guest@example.org', 'country' => 'GB'],
            'date_paid' => new WC_DateTime('2026-11-22T11:20:30+01:00'),
            'items' => [
                $this->item($course, 'PMP exam preparation', 1, '167.23', '31.77'),
                $this->item($guide, 'Formula guide', 2, '25.13', '4.77'),
                $this->item($bundle, 'Both courses', 1, '0', '0'),
            ],
        ]);
        $order->save();

        $this->pay($order->get_id());

        $payload = $this->outbox(Kind::Purchase)[0]['payload'];
        self::assertEquals(228.9, $payload['amount']);
        self::assertSame('EUR', $payload['currency']);
        self::assertSame('stripe', $payload['payment_method']);
        self::assertSame('2026-11-22T10:20:30Z', $payload['paid_at']);
        self::assertSame((string) $order->get_id(), $payload['order_id']);
        self::assertSame('2026-0007', $payload['metadata']['order_number']);
        self::assertSame([['spring10'], 'GB'], [$payload['coupon_codes'], $payload['country']]);
        self::assertEquals([20, 36.54, 4.9], [$payload['discount_total'], $payload['tax_total'], $payload['shipping_total']]);
        self::assertEqualsWithDelta([199, 29.9, 0], array_column($payload['lines'], 'amount'), 1e-9);
        self::assertSame(['course', 'guide', 'course'], array_column($payload['lines'], 'product_type'));
        self::assertSame([0 => [(string) $course], 2 => ['77', '78']], array_map(
            static fn (array $line): array => $line['course_ids'],
            array_filter($payload['lines'], static fn (array $line): bool => isset($line['course_ids'])),
        ));
        self::assertFalse($payload['is_staff']);
        self::assertFalse($payload['is_test']);
    }

    public function test_staffs_and_test_orders_are_flagged(): void
    {
        $staff = $this->order(['customer_id' => $this->customer('manager', 'shop_manager'), 'payment_method' => 'stripe-test']);
        $staff->save();
        $guest = $this->order(['billing' => ['email' => 'manager@example.org']]);
        $guest->save();

        $this->pay($staff->get_id());
        $this->pay($guest->get_id());

        [$first, $second] = array_column($this->outbox(Kind::Purchase), 'payload');
        self::assertTrue($first['is_staff']);
        self::assertTrue($first['is_test']);
        self::assertTrue($second['is_staff'], 'staff that buys as a guest');
        self::assertFalse($second['is_test']);
    }

    public function test_a_status_of_another_plugins_own_is_paid_when_woocommerce_says_so(): void
    {
        $paid = static fn (array $statuses): array => [...$statuses, 'shipped'];
        add_filter('woocommerce_order_is_paid_statuses', $paid);
        $shipped = $this->order(['status' => 'shipped']);
        $shipped->save();
        $quoted = $this->order(['status' => 'quoted']);
        $quoted->save();

        do_action('woocommerce_update_order', $shipped->get_id());
        do_action('woocommerce_update_order', $quoted->get_id());
        $this->end_of_request();
        remove_filter('woocommerce_order_is_paid_statuses', $paid);

        self::assertSame(['completed', 'pending'], array_column($this->reports(), 0));
    }

    public function test_a_refund_says_what_was_returned(): void
    {
        $order = $this->order(['status' => 'completed', 'total' => '228.90']);
        $order->save();
        $gone = $this->item(0, 'A course that is gone', 0, '-8.40', '-1.60');
        $gone->update_meta_data('_refunded_item_id', '71');
        $items = [$this->item(305, 'Formula guide', -2, '-25.12', '-4.78'), $gone];
        $refund = $this->refund($order->get_id(), '39.90', 0, $items);

        do_action('woocommerce_order_refunded', $order->get_id(), $refund);

        [$reported] = array_column($this->outbox(Kind::Refund), 'payload');
        self::assertSame([['305', 2], ['71', 0]], array_map(
            static fn (array $line): array => [$line['product_id'], $line['quantity']],
            $reported['lines'],
        ));
        self::assertEqualsWithDelta([29.9, 10], array_column($reported['lines'], 'amount'), 1e-9);
    }

    public function test_a_refund_of_an_order_from_before_the_plugin_reports_the_order_first(): void
    {
        $order = $this->order(['status' => 'completed']);
        $order->save();
        $refund = $this->refund($order->get_id(), '5.00');

        do_action('woocommerce_order_refunded', $order->get_id(), $refund);

        self::assertSame(['purchase', 'refund'], array_column($this->outbox(), 'kind'));
    }

    public function test_a_refund_whose_amount_is_not_there_yet_is_read_again(): void
    {
        $order = $this->order(['status' => 'completed']);
        $order->save();
        $refund = $this->refund($order->get_id(), '0.00');
        do_action('woocommerce_order_refunded', $order->get_id(), $refund);
        self::assertSame([], $this->outbox(Kind::Refund));
        self::assertNotFalse(wp_next_scheduled('pmp_analytics_tell_order', [$order->get_id()]));

        $this->refund($order->get_id(), '5.00', $refund);
        do_action('pmp_analytics_tell_order', $order->get_id());
        do_action('pmp_analytics_tell_order', $order->get_id());

        self::assertSame([[(string) $refund, 5, 5]], array_map(self::amounts(...), array_column($this->outbox(Kind::Refund), 'payload')));
    }

    public function test_a_draft_of_the_block_checkout_is_no_order_yet(): void
    {
        foreach (['checkout-draft', 'auto-draft', 'trash'] as $status) {
            $order = $this->order(['status' => $status]);
            do_action('woocommerce_update_order', $order->save());
        }
        $this->end_of_request();

        self::assertSame([], $this->outbox());
    }

    public function test_an_order_that_staff_is_still_writing_is_nobodys(): void
    {
        $order = $this->order(['billing' => []]);
        $order->save();

        do_action('woocommerce_update_order', $order->get_id());
        $this->end_of_request();

        self::assertSame([], $this->outbox());
    }

    public function test_what_is_sold_over_the_counter_counts_without_a_buyer(): void
    {
        $order = $this->order(['billing' => ['email' => 'not an address']]);
        $order->save();

        $this->pay($order->get_id());

        $payload = $this->outbox(Kind::Purchase)[0]['payload'];
        self::assertEquals(199, $payload['amount']);
        self::assertSame([], array_intersect_key($payload, array_flip(['email', 'user_id', 'session_id'])));
    }

    public function test_money_of_an_anonymised_order_goes_on_being_reported_with_nobody_in_it(): void
    {
        $this->start_session();
        $order = $this->order(['status' => 'completed', 'customer_id' => $this->customer()]);
        do_action('woocommerce_checkout_create_order', $order, []);
        $order->save();
        $this->plugin->handle_woocommerce_purchase($order->get_id());

        $order = $this->anonymise($order->get_id());
        self::assertStringNotContainsString('guest@example.org', (string) wp_json_encode($this->outbox()), 'what waits is nobody\'s');
        self::assertSame('', (new WC_Order($order->get_id()))->get_meta('_pmp_visit'));
        $this->end_of_request();
        self::assertArrayNotHasKey('is_staff', array_slice($this->outbox(Kind::Purchase), -1)[0]['payload'], 'staff stays staff');
        $this->drain();

        $this->refund($order->get_id(), '40.00');
        do_action('woocommerce_order_refunded', $order->get_id());
        [$refund] = $this->outbox(Kind::Refund);
        self::assertEquals([40, 40], [$refund['payload']['amount'], $refund['payload']['refunded_total']]);
        self::assertArrayNotHasKey('reason', $refund['payload']);
        $known = (string) wp_json_encode($this->mesh->accepted) . (string) wp_json_encode($this->outbox());
        self::assertStringNotContainsString('deleted@site.invalid', $known);
    }

    public function test_an_order_of_another_buyer_keeps_its_session_when_another_is_anonymised(): void
    {
        $this->start_session();
        $other = $this->order();
        do_action('woocommerce_checkout_create_order', $other, []);
        $other->save();
        $this->pay($other->get_id());
        $order = $this->order(['status' => 'completed']);
        $order->save();

        $this->anonymise($order->get_id());

        self::assertNotSame('', (new WC_Order($other->get_id()))->get_meta('_pmp_visit'));
        self::assertStringContainsString('s-9f8e7d6c', (string) wp_json_encode($this->outbox()));
    }

    public function test_a_trashed_order_is_cancelled_and_a_restored_one_stands_again(): void
    {
        $order = $this->order(['status' => 'processing', 'date_paid' => new WC_DateTime('2026-11-22T10:20:30Z')]);
        $order->save();
        $this->change($order->get_id(), 'woocommerce_update_order', []);

        $this->change($order->get_id(), 'woocommerce_trash_order', ['status' => 'trash']);
        $this->change($order->get_id(), 'woocommerce_untrash_order', ['status' => 'processing']);

        self::assertSame([['processing', 199.0], ['cancelled', 199.0], ['processing', 199.0]], $this->reports());
        $payloads = array_column($this->outbox(Kind::Purchase), 'payload');
        self::assertSame([null, 'trashed', null], array_map(static fn (array $payload): ?string => $payload['reason'] ?? null, $payloads));
        self::assertSame(['2026-11-22T10:20:30Z'], array_unique(array_column($payloads, 'paid_at')), 'it was paid all the same');
        self::assertCount(3, array_unique(array_column($payloads, 'id')));
    }

    public function test_an_order_that_is_deleted_is_reported_before_it_is_gone(): void
    {
        $order = $this->order(['status' => 'processing']);
        $order->save();
        $refund = $this->refund($order->get_id(), '40.00');
        $this->change($order->get_id(), 'woocommerce_update_order', []);

        do_action('woocommerce_before_delete_order', $order->get_id(), new WC_Order($order->get_id()));
        do_action('woocommerce_before_delete_order', $refund, new WC_Order_Refund($refund));
        (new WC_Order($order->get_id()))->delete();
        (new WC_Order_Refund($refund))->delete();
        do_action('woocommerce_delete_order', $order->get_id());
        $this->end_of_request();

        self::assertSame([['processing', 199.0], ['cancelled', 199.0]], $this->reports());
        self::assertSame('deleted', $this->outbox(Kind::Purchase)[1]['payload']['reason']);
        self::assertCount(1, $this->outbox(Kind::Refund), 'what was paid back goes with the order, and was paid back');
    }

    public function test_wp_admins_list_trashes_and_deletes_orders_that_are_posts(): void
    {
        $order = $this->order(['status' => 'processing', 'total' => '100.00']);
        $order->save();
        $refund = $this->refund($order->get_id(), '40.00');
        $this->change($order->get_id(), 'woocommerce_update_order', []);
        // As WooCommerce keeps them: no word of it but WordPress's own.
        $ids = [$order->get_id() => 'shop_order', $refund => 'shop_order_refund'];
        foreach ($ids as $id => $type) {
            wp_cache_set($id, (object) ['ID' => $id, 'post_type' => $type, 'post_parent' => $order->get_id(), 'filter' => 'raw'], 'posts');
        }

        $this->change($order->get_id(), 'trashed_post', ['status' => 'trash']);
        $this->change($order->get_id(), 'untrashed_post', ['status' => 'processing']);
        do_action('before_delete_post', (string) $refund, get_post($refund));
        (new WC_Order_Refund($refund))->delete(true);
        $this->end_of_request();
        do_action('before_delete_post', $order->get_id(), get_post($order->get_id()));

        self::assertEquals(
            [
                ['processing', 100.0, ''],
                ['refund', 40.0, '40'],
                ['cancelled', 100.0, 'trashed'],
                ['processing', 100.0, ''],
                ['deleted refund', null, '0'],
                ['cancelled', 100.0, 'deleted'],
            ],
            array_map(self::summary_of(...), $this->outbox()),
        );
    }

    public function test_an_order_that_was_never_reported_is_not_reported_when_it_is_thrown_away(): void
    {
        $order = $this->order(['billing' => []]);
        $order->save();

        $this->change($order->get_id(), 'woocommerce_trash_order', ['status' => 'trash']);
        do_action('woocommerce_before_delete_order', $order->get_id(), new WC_Order($order->get_id()));

        self::assertSame([], $this->outbox());
    }

    public function test_a_deleted_refund_is_taken_back_by_whatever_way_it_went(): void
    {
        $order = $this->order(['status' => 'processing', 'total' => '100.00']);
        $order->save();
        $first = $this->refund($order->get_id(), '40.00');
        do_action('woocommerce_order_refunded', $order->get_id());
        $second = $this->refund($order->get_id(), '10.00');
        do_action('woocommerce_order_refunded', $order->get_id());

        // wp-admin fires a hook of its own, the data store another one.
        (new WC_Order_Refund($first))->delete();
        do_action('woocommerce_refund_deleted', $first, $order->get_id());
        $this->end_of_request();
        (new WC_Order_Refund($second))->delete(true);
        $this->end_of_request();
        $this->end_of_request();

        $reported = array_map(static fn (array $message): array => $message['payload'], $this->outbox(Kind::Refund));
        self::assertEquals(
            [[(string) $first, false, 40], [(string) $second, false, 50], [(string) $first, true, 10], [(string) $second, true, 0]],
            array_map(static fn (array $refund): array => [$refund['reference'], $refund['deleted'], $refund['refunded_total']], $reported),
        );
        self::assertArrayNotHasKey('amount', $reported[2]);
    }

    public function test_an_order_that_is_edited_or_cancelled_after_it_was_paid_is_reported_as_it_stands(): void
    {
        $order = $this->order(['status' => 'processing', 'total' => '33.33']);
        $order->save();
        $this->change($order->get_id(), 'woocommerce_update_order', []);

        $this->clock->move(60);
        $this->change($order->get_id(), 'woocommerce_update_order', ['total' => '41.10']);
        $this->clock->move(60);
        $this->change($order->get_id(), 'woocommerce_update_order', ['status' => 'cancelled']);
        $this->change($order->get_id(), 'woocommerce_update_order', ['status' => 'processing', 'total' => '33.33']);

        self::assertSame([['processing', 33.33], ['processing', 41.1], ['cancelled', 41.1], ['processing', 33.33]], $this->reports());
        $times = array_column(array_column($this->outbox(Kind::Purchase), 'payload'), 'reported_at');
        self::assertLessThan($times[1], $times[0]);
        self::assertLessThan($times[2], $times[1]);
    }

    public function test_a_renewal_has_no_session_of_the_first_order(): void
    {
        $this->start_session();
        $first = $this->order();
        do_action('woocommerce_checkout_create_order', $first, []);
        $first->save();
        $this->pay($first->get_id());
        $_COOKIE = [];
        $copied = apply_filters('wc_subscriptions_renewal_order_data', ['_pmp_visit' => ['x'], '_pmp_told' => [], '_other' => 'kept']);
        self::assertSame(['_other' => 'kept'], $copied);

        // As one that was copied before the plugin kept its own apart.
        $renewal = $this->order(['created_via' => 'subscription']);
        $renewal->update_meta_data('_pmp_visit', $first->get_meta('_pmp_visit'));
        $renewal->update_meta_data('_subscription_renewal', '77');
        $renewal->save();
        $this->pay($renewal->get_id());

        $payload = $this->outbox(Kind::Purchase)[1]['payload'];
        self::assertArrayNotHasKey('session_id', $payload);
        self::assertArrayNotHasKey('utm_parameters', $payload);
        self::assertTrue($payload['metadata']['is_renewal']);
        self::assertArrayNotHasKey('is_renewal', $this->outbox(Kind::Purchase)[0]['payload']['metadata']);
    }

    public function test_hooks_fired_carelessly_break_nothing(): void
    {
        $order = $this->order(['status' => 'processing']);
        $order->save();

        do_action('woocommerce_order_status_changed', (string) $order->get_id());
        do_action('woocommerce_order_status_changed', null, null, null, null);
        do_action('woocommerce_update_order', false);
        do_action('woocommerce_order_refunded', null);
        do_action('woocommerce_add_to_cart', 'key', 11, 1, null);
        do_action('woocommerce_checkout_create_order', null);
        $this->end_of_request();

        self::assertSame([['processing', 199.0]], $this->reports());
    }

    public function test_an_order_that_breaks_our_reading_does_not_break_the_checkout(): void
    {
        $log = ini_set('error_log', '/dev/null');
        $broken = new class extends WC_Order {
            public function get_status(): string
            {
                throw new \RuntimeException('of another plugin');
            }

            public function get_id(): int
            {
                return 7;
            }
        };

        do_action('woocommerce_order_status_changed', 7, 'pending', 'processing', $broken);
        ini_set('error_log', (string) $log);

        self::assertSame([], $this->outbox());
    }

    public function test_a_changed_amount_is_reported_again_and_an_unchanged_order_is_not(): void
    {
        $order = $this->order(['status' => 'processing', 'total' => '10.00']);
        $order->save();
        $this->plugin->handle_woocommerce_purchase($order->get_id());
        $this->plugin->handle_woocommerce_purchase($order->get_id());

        $order = new WC_Order($order->get_id());
        $order->set_props(['total' => '12.00']);
        $order->save();
        $this->plugin->handle_woocommerce_purchase($order->get_id());

        self::assertSame([['processing', 10.0], ['processing', 12.0]], $this->reports());
    }

    /**
     * @return list<array{string, float}> Status and amount of each purchase that waits.
     */
    private function reports(): array
    {
        return array_map(
            static fn (array $message): array => [$message['payload']['payment_status'], (float) $message['payload']['amount']],
            $this->outbox(Kind::Purchase),
        );
    }

    /**
     * @param array<string, mixed> $message
     * @return array{string, float|null, string} What, how much, and why; of a refund, all that is paid back.
     */
    private static function summary_of(array $message): array
    {
        $payload = $message['payload'];
        if ($message['kind'] === 'purchase') {
            return [$payload['payment_status'], (float) $payload['amount'], $payload['reason'] ?? ''];
        }
        return [$payload['deleted'] ? 'deleted refund' : 'refund', $payload['amount'] ?? null, (string) $payload['refunded_total']];
    }

    /**
     * @param array<string, mixed> $fields
     */
    private function order(array $fields = []): WC_Order
    {
        $order = new WC_Order();
        $order->set_props($fields + ['status' => 'pending', 'total' => '199.00', 'billing' => ['email' => 'guest@example.org']]);
        return $order;
    }

    /**
     * @param array<string, mixed> $fields
     */
    private function change(int $order_id, string $hook, array $fields): void
    {
        $order = new WC_Order($order_id);
        $order->set_props($fields);
        $order->save();
        do_action($hook, $order_id, $order);
        $this->end_of_request();
    }

    /**
     * As WooCommerce takes a person out of an order.
     */
    private function anonymise(int $order_id): WC_Order
    {
        $order = new WC_Order($order_id);
        $order->set_props(['billing' => ['email' => 'deleted@site.invalid'], 'customer_id' => 0]);
        $order->update_meta_data('_anonymized', 'yes');
        $order->save();
        do_action('woocommerce_update_order', $order_id, $order);
        do_action('woocommerce_privacy_remove_order_personal_data', $order);
        return $order;
    }

    private function pay(int $order_id): void
    {
        $order = new WC_Order($order_id);
        $order->set_props(['status' => 'processing']);
        $order->save();
        do_action('woocommerce_order_status_changed', $order_id, 'pending', 'processing', $order);
    }

    /**
     * @param list<WC_Order_Item_Product> $items
     */
    private function refund(int $order_id, string $amount, int $id = 0, array $items = []): int
    {
        $refund = new WC_Order_Refund($id);
        $refund->set_props(['parent' => $order_id, 'amount' => $amount, 'items' => $items]);
        return $refund->save();
    }

    private function product(string $name, string $category): int
    {
        register_taxonomy('product_cat', 'product');
        $product = (int) wp_insert_post(['post_type' => 'product', 'post_title' => $name, 'post_status' => 'publish']);
        wp_set_object_terms($product, $category, 'product_cat');
        return $product;
    }

    private function item(int $product, string $name, int $quantity, string $total, string $tax): WC_Order_Item_Product
    {
        $item = new WC_Order_Item_Product();
        $item->set_props(['product_id' => $product, 'name' => $name, 'quantity' => $quantity, 'total' => $total, 'total_tax' => $tax]);
        return $item;
    }

    /**
     * @param array<string, mixed> $message
     */
    private static function is_about(array $message, string $order): bool
    {
        return $message['target'] === $order || ($message['payload']['order_id'] ?? '') === $order;
    }

    /**
     * @param array<string, mixed> $refund
     * @return array{string, float|int, float|int}
     */
    private static function amounts(array $refund): array
    {
        return [$refund['reference'], $refund['amount'], $refund['refunded_total']];
    }
}
