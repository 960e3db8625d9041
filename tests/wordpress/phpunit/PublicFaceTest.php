<?php

declare(strict_types=1);

namespace PMP\Analytics\Tests;

use Automattic\WooCommerce\Utilities\FeaturesUtil;
use PMP\Analytics\Queue\Kind;
use PMP\Analytics\TrackerScript;
use PMP_Analytics_Plugin;
use PMP_Config;
use WC_Order;

/**
 * What the brief's own tests call, and what visitors see of the plugin.
 */
final class PublicFaceTest extends SiteTestCase
{
    protected const RECORDS_VALID_PAYLOADS = true;

    public function test_a_page_view_by_hand(): void
    {
        $plugin = new PMP_Analytics_Plugin();
        $this->start_session();

        $data = ['page_url' => 'https://example.com/test-page', 'user_id' => 123, 'session_id' => 'test-session'];
        $result = $plugin->track_page_view($data);

        self::assertTrue($result);
        self::assertContains('page_view', array_column($plugin->get_sent_events(), 'event_type'));
        $payload = $this->outbox()[0]['payload'];
        self::assertSame('123', $payload['user_id']);
        self::assertSame('test-session', $payload['session_id']);
        self::assertSame('203.0.113.77', $payload['ip_address']);
        self::assertSame('https://example.com/test-page', $payload['page_url']);
    }

    public function test_an_order_by_hand(): void
    {
        $plugin = new PMP_Analytics_Plugin();
        $order = new WC_Order();
        $order->set_props(['status' => 'completed', 'total' => '199.00', 'billing' => ['email' => 'guest@example.org']]);

        $plugin->handle_woocommerce_purchase($order->save());

        self::assertContains('purchase', array_column($plugin->get_sent_events(), 'event_type'));
        self::assertSame((string) $order->get_id(), $this->outbox(Kind::Purchase)[0]['payload']['order_id']);
    }

    public function test_the_other_records(): void
    {
        $user = $this->customer();
        $this->drain();
        wp_set_current_user($user);

        self::assertTrue($this->plugin->track_user_action('video_watched', ['metadata' => ['seconds' => 90]]));
        self::assertTrue($this->plugin->track_conversion('trial', ['value' => 12.5, 'currency' => 'EUR']));
        self::assertTrue($this->plugin->track_touchpoint(['action' => 'download', 'touchpoint' => 'webinar']));
        self::assertTrue($this->plugin->track_purchase(['order_id' => 'pos-7', 'amount' => 20, 'currency' => 'EUR']));
        $this->plugin->handle_course_enrollment($user, 7);

        self::assertSame(['event', 'conversion', 'touchpoint', 'purchase', 'event', 'conversion'], array_column($this->outbox(), 'kind'));
        foreach ($this->outbox() as $message) {
            self::assertSame((string) $user, $message['payload']['user_id']);
        }
    }

    public function test_a_registration_by_hand_is_the_one_that_waits_already(): void
    {
        $user = $this->customer();

        $this->plugin->handle_user_registration($user);

        self::assertCount(1, $this->outbox(Kind::Registration));
    }

    public function test_a_page_calls_nobody_and_is_the_same_for_everybody(): void
    {
        global $wpdb;
        // What other tests have done in this process is over.
        $this->end_of_request();
        $first = $this->page();
        $this->start_session();
        $_SERVER['REMOTE_ADDR'] = '198.51.100.7';
        $queries = $wpdb->num_queries;
        $second = $this->page();
        $_SERVER['REMOTE_ADDR'] = '203.0.113.77';
        $this->end_of_request();

        self::assertSame($first, $second);
        self::assertSame($queries, $wpdb->num_queries, 'a page costs no query of ours');
        self::assertSame([], $this->mesh->calls);
        self::assertSame([], $this->outbox());
    }

    public function test_a_page_has_one_script_that_blocks_nothing(): void
    {
        $page = $this->page();

        self::assertSame(1, substr_count($page, 'assets/shop.js'));
        self::assertMatchesRegularExpression('~<script type="module"\s+src=.https?://shop.example/[^>]+shop\.js~', $page);
        $island = '~<script type="application/json" id="pmp-settings">(.+)</script>~';
        self::assertSame(1, preg_match($island, $page, $found));
        $settings = json_decode($found[1], true);
        $ask = $settings['ask'];
        unset($settings['ask']);
        self::assertSame(['route' => '/wp-json/pmp/v1/notes', 'drain' => '/wp-json/pmp/v1/drain', 'consent' => 'required'], $settings);
        self::assertSame('/wp-json/pmp/v1/choices', $ask['route']);
        self::assertMatchesRegularExpression('~^/wp-content/plugins/pmp-analytics/assets/ask\.js\?ver=[\d.]+$~', $ask['script']);
        self::assertNotEmpty($ask['title']);
        self::assertStringNotContainsString('<script src="/wp-content/plugins/pmp-analytics/assets/ask.js', $page);
    }

    public function test_a_page_lets_people_change_their_mind(): void
    {
        // PHPUnit loads WordPress inside a function, where the list of shortcodes is lost.
        add_shortcode('pmp_privacy_choices', [new TrackerScript(PMP_ANALYTICS_FILE, new PMP_Config()), 'choices_button']);

        $button = '<button type="button" data-pmp-consent="ask">Privacy choices</button>';
        self::assertSame($button, do_shortcode('[pmp_privacy_choices]'));
    }

    public function test_the_banner_leads_to_the_privacy_policy(): void
    {
        $policy = (int) wp_insert_post(['post_type' => 'page', 'post_status' => 'publish', 'post_title' => 'Our privacy']);
        update_option('wp_page_for_privacy_policy', $policy);

        self::assertStringContainsString('"policy":{"url":"https://shop.example/our-privacy/"', $this->page());
    }

    public function test_a_setting_can_not_end_its_island(): void
    {
        add_filter('pmp_analytics_tracker_settings', static fn (): array => ['route' => '</script><script>alert(1)']);

        $page = $this->page();

        self::assertStringNotContainsString('<script>alert', $page);
        self::assertSame(1, preg_match('~id="pmp-settings">(.+)</script>~', $page, $found));
        self::assertSame(['route' => '</script><script>alert(1)'], json_decode($found[1], true));
    }

    public function test_the_plugin_says_that_it_knows_order_tables_and_blocks(): void
    {
        do_action('before_woocommerce_init');

        self::assertSame(['custom_order_tables', 'cart_checkout_blocks'], array_keys(FeaturesUtil::$declared));
        foreach (FeaturesUtil::$declared as $file) {
            self::assertStringEndsWith('pmp-analytics/pmp-analytics.php', $file);
        }
    }

    private function page(): string
    {
        $GLOBALS['wp_scripts'] = null;
        do_action('wp_enqueue_scripts');
        ob_start();
        wp_scripts()->do_item('pmp-analytics');
        return (string) ob_get_clean();
    }
}
