<?php

declare(strict_types=1);

namespace PMP\Analytics\Tests;

use PMP\Analytics\Queue\Kind;
use PMP\Analytics\Queue\Message;
use WC_Order;
use WC_Order_Refund;

/**
 * What WordPress's tools for personal data export and erase of what the plugin holds.
 */
final class PersonalDataTest extends SiteTestCase
{
    private const ADA = 'ada@example.org';

    private int $ada;

    protected function setUp(): void
    {
        parent::setUp();
        $this->ada = $this->customer();
        $this->drain();
    }

    public function test_all_that_waits_of_a_person_is_exported_and_nothing_of_others(): void
    {
        $this->say('by address', ['email' => 'Ada@Example.org', 'session_id' => 's-ada']);
        $this->say('by account', ['user_id' => (string) $this->ada, 'metadata' => ['visitor_id' => 'b-ada']]);
        $this->say('by session', ['session_id' => 's-ada']);
        $this->say('by browser', ['session_id' => 's-before', 'metadata' => ['visitor_id' => 'b-ada']]);
        $this->say('an earlier session of that browser', ['session_id' => 's-before']);
        $this->say('another person', ['email' => 'eve@example.org', 'session_id' => 's-eve']);
        $this->say('another person in the same browser', ['user_id' => '999', 'metadata' => ['visitor_id' => 'b-ada']]);
        $this->say('nobody', []);
        $this->queue->add(new Message(Kind::Consent, 'c-1', ['analytics_tracking' => true], 'session:s-ada'));
        $this->queue->add(new Message(Kind::Profile, 'p-1', ['first_name' => 'Ada'], (string) $this->ada));

        $exported = $this->exported();

        $of_ada = ['by address', 'by account', 'by session', 'by browser', 'an earlier session', 'analytics_tracking', 'first_name'];
        foreach ($of_ada as $reported) {
            self::assertStringContainsString($reported, $exported);
        }
        self::assertStringNotContainsString('another person', $exported);
        self::assertStringNotContainsString('nobody', $exported);
        self::assertStringNotContainsString('nobody', $this->exported('stranger@example.org'));
    }

    public function test_what_the_mesh_refused_is_exported_too(): void
    {
        $this->say('bad', ['email' => self::ADA]);
        $this->drain();
        self::assertSame(1, $this->queue->state()->set_aside);

        self::assertStringContainsString('bad', $this->exported());
    }

    public function test_the_session_kept_on_an_order_and_enrolments_are_exported(): void
    {
        $this->start_session();
        $this->order();
        $this->plugin->handle_course_enrollment($this->ada, 77);

        $exported = $this->exported();

        self::assertStringContainsString('fb.1.1795342000000.987654321', $exported);
        self::assertStringContainsString('PARTNER7', $exported);
        self::assertStringContainsString('77', $exported);
    }

    public function test_what_is_erased_is_not_reported(): void
    {
        $this->say('a', ['email' => self::ADA, 'session_id' => 's-ada']);
        $this->say('b', ['session_id' => 's-ada']);
        $this->say('c', ['session_id' => 's-eve']);

        $result = $this->erased();
        $this->drain();

        self::assertSame([true, false, true], [$result['items_removed'], $result['items_retained'], $result['done']]);
        self::assertSame(['c'], $this->mesh->deliveries);
        self::assertSame([], $result['messages']);
        self::assertFalse($this->erased()['items_removed'], 'nothing is left');
    }

    public function test_a_sale_that_waits_is_reported_without_its_buyer_and_without_free_text(): void
    {
        $this->start_session();
        $order = $this->order();
        $refund = new WC_Order_Refund();
        $refund->set_props(['parent' => $order, 'amount' => '9.00', 'reason' => 'Ada Lovelace asked']);
        $refund->save();
        $this->plugin->handle_woocommerce_purchase($order);
        self::assertStringContainsString(self::ADA, (string) wp_json_encode($this->outbox()));

        $result = $this->erased();

        self::assertTrue($result['items_retained']);
        $left = (string) wp_json_encode($this->outbox());
        foreach ([self::ADA, 'Lovelace', 's-9f8e7d6c', 'fb.1', 'PARTNER7', 'newsletter', '"user_id"'] as $personal) {
            self::assertStringNotContainsString($personal, $left);
        }
        [$purchase] = $this->outbox(Kind::Purchase);
        self::assertEquals(199, $purchase['payload']['amount']);
        self::assertArrayNotHasKey('session_id', $purchase['payload']);
        self::assertEquals(9, $this->outbox(Kind::Refund)[0]['payload']['amount']);
        self::assertStringNotContainsString('fb.1', (string) wp_json_encode((new WC_Order($order))->get_meta('_pmp_visit')));
        $this->drain();
        self::assertArrayHasKey("/api/v1/purchases/track {$purchase['id']}", $this->mesh->accepted);
        self::assertSame(0, $this->queue->state()->set_aside);
    }

    public function test_enrolments_are_erased_with_their_person(): void
    {
        $this->plugin->handle_course_enrollment($this->ada, 77);

        $this->erased();

        self::assertSame('', get_user_meta($this->ada, 'pmp_enrolled_77', true));
        self::assertSame([], $this->outbox());
    }

    public function test_what_can_not_be_read_stops_nobody(): void
    {
        (new \PMP_Event_Queue(null, $this->clock, $this->other_key()))->add($this->event('unreadable'));
        $this->say('a', ['email' => self::ADA]);

        self::assertTrue($this->erased()['items_removed']);
    }

    public function test_a_text_for_the_privacy_policy_is_suggested(): void
    {
        require_once ABSPATH . 'wp-admin/includes/class-wp-privacy-policy-content.php';
        $GLOBALS['wp_current_filter'][] = 'admin_init';
        set_current_screen('privacy');
        $this->plugin_part()->suggest_policy();
        array_pop($GLOBALS['wp_current_filter']);

        $texts = (new \ReflectionProperty(\WP_Privacy_Policy_Content::class, 'policy_content'))->getValue();
        self::assertStringContainsString('Global Privacy Control', implode(array_column($texts, 'policy_text')));
        set_current_screen('front');
    }

    /**
     * @param array<string, mixed> $facts
     */
    private function say(string $id, array $facts): void
    {
        $id = str_replace(' ', '_', $id);
        $this->queue->add(new Message(Kind::Event, $id, ['id' => str_replace('_', ' ', $id), 'event_type' => 'click'] + $facts));
    }

    private function order(): int
    {
        $order = new WC_Order();
        $order->set_props([
            'status' => 'completed',
            'total' => '199.00',
            'customer_id' => $this->ada,
            'billing' => ['email' => self::ADA, 'last_name' => 'Lovelace'],
        ]);
        do_action('woocommerce_checkout_create_order', $order, []);
        return $order->save();
    }

    private function exported(string $email = self::ADA): string
    {
        $exporter = apply_filters('wp_privacy_personal_data_exporters', [])['pmp-analytics'];
        $result = $exporter['callback']($email, 1);
        self::assertTrue($result['done']);
        return html_entity_decode((string) wp_json_encode($result['data'], JSON_UNESCAPED_SLASHES));
    }

    /**
     * @return array{items_removed: bool, items_retained: bool, messages: list<string>, done: bool}
     */
    private function erased(): array
    {
        return apply_filters('wp_privacy_personal_data_erasers', [])['pmp-analytics']['callback'](self::ADA, 1);
    }

    private function plugin_part(): \PMP\Analytics\Privacy\PersonalData
    {
        return apply_filters('wp_privacy_personal_data_erasers', [])['pmp-analytics']['callback'][0];
    }
}
