<?php

declare(strict_types=1);

namespace PMP\Analytics\Tests;

use PMP\Analytics\Queue\Message;
use PMP\Analytics\Queue\Kind;
use PMP_Config;
use WC_Order;
use WP_REST_Response;

/**
 * The mesh has erased a person and calls this site.
 */
final class ErasuresTest extends SiteTestCase
{
    use SignedCalls;

    private const ADA = ['emails' => ['ada@example.org'], 'session_ids' => ['s-ada'], 'wordpress_user_ids' => [], 'anonymous_ids' => []];

    /** @var list<string> Addresses that another plugin erased. */
    private array $erased = [];

    protected function setUp(): void
    {
        parent::setUp();
        $this->share_secret();
        $this->erased = [];
        add_filter('wp_privacy_personal_data_erasers', [$this, 'add_eraser']);
    }

    protected function tearDown(): void
    {
        remove_filter('wp_privacy_personal_data_erasers', [$this, 'add_eraser']);
        parent::tearDown();
    }

    public function test_a_guest_is_erased_by_address_and_session_and_the_mesh_is_not_called(): void
    {
        $this->start_session();
        $order = new WC_Order();
        $order->set_props(['status' => 'completed', 'total' => '9.00', 'billing' => ['email' => 'ada@example.org']]);
        do_action('woocommerce_checkout_create_order', $order, []);
        $order->save();
        $this->say('by address', ['email' => 'Ada@example.org']);
        $this->say('by session', ['session_id' => 's-ada']);
        $this->say('another person', ['session_id' => 's-eve', 'email' => 'eve@example.org']);
        $this->say('nobody', []);
        $before = count($this->mesh->calls);

        self::assertSame(200, $this->call(self::ADA)->get_status());

        $left = array_column($this->outbox(Kind::Event), 'id');
        self::assertSame(['another_person', 'nobody'], $left);
        self::assertSame('', (new WC_Order($order->get_id()))->get_meta('_pmp_visit'));
        self::assertCount($before, $this->mesh->calls);
        self::assertSame([], $this->erased, 'what WordPress holds is left to the shop');
    }

    public function test_an_account_is_forgotten_though_it_is_gone(): void
    {
        $ada = $this->customer();
        $this->say('by account', ['user_id' => (string) $ada]);
        $this->say('by address', ['email' => 'ada@example.org']);
        $this->say('of a deleted account', ['user_id' => '999']);
        $this->plugin->handle_course_enrollment($ada, 77);

        $this->call(['wordpress_user_ids' => [(string) $ada, '999']]);

        self::assertSame([], $this->outbox(Kind::Event));
        self::assertSame('', get_user_meta($ada, 'pmp_enrolled_77', true));
    }

    public function test_reports_that_are_kept_are_forgotten_since_they_may_name_the_person(): void
    {
        global $wpdb;
        set_transient('pmp_report_customers', ['text' => '{"rows": [{"customer": "019a"}]}', 'at' => 0.0], MINUTE_IN_SECONDS);

        $this->call(self::ADA);

        self::assertSame([], $wpdb->get_col("SELECT option_name FROM {$wpdb->options} WHERE option_name LIKE '%pmp\\_report\\_%'"));
    }

    public function test_names_that_are_none_forget_nobody(): void
    {
        $this->say('nobody', []);
        $this->call(['wordpress_user_ids' => ['', '0', 'x', 7], 'emails' => ['', 'x', []], 'session_ids' => '', 'anonymous_ids' => [1]]);

        self::assertCount(1, $this->outbox(Kind::Event));
    }

    public function test_a_repeated_call_is_answered_and_does_nothing(): void
    {
        $this->call(self::ADA);
        $this->say('afterwards', ['email' => 'ada@example.org']);

        $again = $this->call(self::ADA);

        self::assertSame([200, true], [$again->get_status(), $again->get_data()['duplicate']]);
        self::assertCount(1, $this->outbox());
        $this->call(self::ADA, ['webhook-id' => 'another']);
        self::assertSame([], $this->outbox());
    }

    /**
     * @return array<string, array{array<string, string>}>
     */
    public static function unsigned(): array
    {
        return [
            'another signature' => [['webhook-signature' => 'v1,' . base64_encode(str_repeat('x', 32))]],
            'no signature' => [['webhook-signature' => '']],
            'another id' => [['signed-id' => 'another']],
            'no id' => [['webhook-id' => '']],
            'six minutes old' => [['webhook-timestamp' => (string) ((int) MovedClock::START - 360)]],
            'six minutes ahead' => [['webhook-timestamp' => (string) ((int) MovedClock::START + 360)]],
            'a time that is none' => [['webhook-timestamp' => '1e10']],
            'another body' => [['signed-body' => '{}']],
            'another secret' => [['secret' => 'whsec_YW5vdGhlciBzZWNyZXQgb2YgbW9yZSB0aGFuIDI0IGJ5dGVz']],
        ];
    }

    /**
     * @dataProvider unsigned
     * @param array<string, string> $changes
     */
    public function test_only_the_mesh_may_call_and_only_now(array $changes): void
    {
        $this->say('a', ['email' => 'ada@example.org']);

        self::assertSame(401, $this->call(self::ADA, $changes)->get_status());
        self::assertCount(1, $this->outbox());
    }

    public function test_one_of_several_signatures_is_enough(): void
    {
        self::assertSame(200, $this->call(self::ADA, ['further' => 'v1,b2xk v2,b3RoZXI= '])->get_status());
    }

    public function test_without_a_secret_nobody_may_call(): void
    {
        foreach (['', 'whsec_', 'whsec_' . base64_encode('short')] as $secret) {
            delete_option(PMP_Config::OPTION);
            update_option(PMP_Config::OPTION, ['erasure_secret' => $secret]);
            self::assertSame(401, $this->call(self::ADA, ['secret' => $secret])->get_status());
        }
    }

    public function test_what_is_no_erasure_is_refused(): void
    {
        self::assertSame(400, $this->call(self::ADA, [], 'person.created')->get_status());
    }

    public function test_the_sites_own_erasers_run_where_the_shop_wants_it_and_ours_does_not_ask_the_mesh(): void
    {
        update_option(PMP_Config::OPTION, ['erasure_secret' => self::SECRET, 'erases_with_the_mesh' => true]);
        $before = count($this->mesh->calls);

        self::assertSame(200, $this->call(self::ADA)->get_status());

        self::assertSame(['ada@example.org 1', 'ada@example.org 2'], $this->erased);
        self::assertCount($before, $this->mesh->calls);
    }

    public function test_what_takes_too_long_goes_on_with_the_next_call(): void
    {
        update_option(PMP_Config::OPTION, ['erasure_secret' => self::SECRET, 'erases_with_the_mesh' => true]);
        $slow = fn () => $this->clock->move($this->erased === [] ? 20 : 0);
        add_action('pmp_tests_erased', $slow);

        self::assertSame(503, $this->call(self::ADA)->get_status());
        remove_action('pmp_tests_erased', $slow);
        self::assertSame(200, $this->call(self::ADA)->get_status());

        self::assertSame(['ada@example.org 1', 'ada@example.org 1', 'ada@example.org 2'], $this->erased);
    }

    /**
     * @param array<string, array<string, mixed>> $erasers
     * @return array<string, array<string, mixed>>
     */
    public function add_eraser(array $erasers): array
    {
        return ['another-plugin' => ['eraser_friendly_name' => 'Another', 'callback' => [$this, 'erase']]] + $erasers;
    }

    /**
     * @return array<string, mixed>
     */
    public function erase(string $email, int $page): array
    {
        do_action('pmp_tests_erased');
        $this->erased[] = "{$email} {$page}";
        return ['items_removed' => true, 'items_retained' => false, 'messages' => [], 'done' => $page === 2];
    }

    /**
     * @param array<string, mixed> $facts
     */
    private function say(string $id, array $facts): void
    {
        $id = str_replace(' ', '_', $id);
        $this->queue->add(new Message(Kind::Event, $id, ['id' => $id, 'event_type' => 'click'] + $facts));
    }

    /**
     * A call as the mesh makes it, but for what is changed.
     *
     * @param array<string, mixed>  $data
     * @param array<string, string> $changes
     */
    private function call(array $data, array $changes = [], string $type = 'person.erased'): WP_REST_Response
    {
        return $this->signed_call('/pmp/v1/erasures', $type, ['request' => 'r1'] + $data, $changes);
    }
}
