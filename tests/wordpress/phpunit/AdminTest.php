<?php

declare(strict_types=1);

namespace PMP\Analytics\Tests;

use PMP\Analytics\Admin\ConnectionBox;
use PMP\Analytics\Admin\SettingsPage;
use PMP\Analytics\Admin\SiteHealth;
use PMP\Analytics\Capture\Backfill;
use PMP\Analytics\Capture\Courses;
use PMP\Analytics\Capture\OrderReader;
use PMP\Analytics\Capture\Orders;
use PMP\Analytics\Capture\ProductType;
use PMP\Analytics\Connect\Connection;
use PMP\Analytics\Connect\Finding;
use PMP\Analytics\Connect\WayBack;
use PMP\Analytics\Delivery\Pause;
use PMP_API_Client;
use PMP_Config;

final class AdminTest extends SiteTestCase
{
    private SettingsPage $page;

    private Backfill $backfill;

    private Connection $connection;

    protected function setUp(): void
    {
        parent::setUp();
        $reader = new OrderReader(new PMP_Config(), new ProductType(), new Courses(new ProductType()));
        $orders = new Orders($this->queue, $reader, $this->clock);
        $this->backfill = new Backfill($this->queue, $orders, $this->clock);
        [$config, $pause] = [new PMP_Config(), new Pause($this->clock)];
        $client = new PMP_API_Client($config, $this->clock);
        $this->connection = new Connection($config, $client, $pause, new WayBack($config, $client));
        $box = new ConnectionBox($config, $this->connection, PMP_ANALYTICS_FILE);
        $this->page = new SettingsPage($config, $this->queue, $pause, $this->backfill, $box);
        wp_set_current_user(1);
    }

    public function test_secrets_are_never_printed(): void
    {
        update_option(PMP_Config::OPTION, ['gateway_url' => 'https://other.example', 'api_key' => 'k3y', 'jwt_secret' => 's3cret']);
        $page = $this->shown();

        self::assertStringContainsString('Set in wp-config.php', $page);
        self::assertStringNotContainsString('k3y', $page);
        self::assertStringNotContainsString('s3cret', $page);
        self::assertStringNotContainsString('the-shared-secret', $page);
    }

    public function test_an_empty_field_keeps_its_secret(): void
    {
        update_option(PMP_Config::OPTION, ['api_key' => 'k3y', 'jwt_secret' => 's3cret']);

        $kept = $this->page->sanitize(['gateway_url' => ' https://mesh.example ', 'api_key' => '', 'jwt_secret' => 'new']);

        self::assertSame(['api_key' => 'k3y', 'jwt_secret' => 'new', 'gateway_url' => 'https://mesh.example'], $kept);
        self::assertSame('', $this->page->sanitize(['gateway_url' => 'javascript:alert(1)'])['gateway_url']);
    }

    public function test_roles_are_left_out_by_a_tick_and_all_may_be_let_in(): void
    {
        self::assertStringContainsString('value="editor" checked=', $this->shown());
        self::assertMatchesRegularExpression('/value="subscriber">/', $this->shown());

        $kept = $this->page->sanitize(['consent' => 'assumed', 'excluded_roles' => ['', 'author', 'nobody']]);
        self::assertSame(['consent' => 'assumed', 'excluded_roles' => ['author']], $kept);
        self::assertSame(['excluded_roles' => []], $this->page->sanitize(['consent' => 'x', 'excluded_roles' => ['']]));
        self::assertSame([], $this->page->sanitize([]));
        self::assertSame(['erases_with_the_mesh' => true], $this->page->sanitize(['erases_with_the_mesh' => '1']));
        self::assertSame(['erases_with_the_mesh' => false], $this->page->sanitize(['erases_with_the_mesh' => '0']));

        update_option(PMP_Config::OPTION, $kept);
        self::assertStringContainsString('value="author" checked=', $this->shown());
        self::assertStringContainsString('value="assumed" selected=', $this->shown());
        self::assertTrue((new PMP_Config())->is_staff($this->customer('writer', 'author')));
    }

    public function test_reasons_are_escaped(): void
    {
        $this->add_events(['bad-<script>']);
        $this->drain();

        $page = $this->shown();

        self::assertStringContainsString('bad-&lt;script&gt;', $page);
        self::assertStringContainsString('is from tomorrow', $page);
        self::assertStringNotContainsString('bad-<script>', $page);
    }

    public function test_a_check_of_the_connection_says_what_is_wrong(): void
    {
        $wrong = 'The mesh does not answer as expected: ';
        $this->mesh->mood = 'unauthorized';
        self::assertSame(["error {$wrong}HTTP 401 Jwt is expired"], $this->found());

        $this->mesh->mood = 'down';
        self::assertSame(["error {$wrong}Connection refused"], $this->found());

        $this->mesh->mood = 'up';
        self::assertSame('success This site reaches the mesh at https://mesh.example, and the mesh accepts its keys.', $this->found()[0]);
    }

    public function test_a_button_starts_the_import_of_existing_orders(): void
    {
        self::assertStringContainsString('not imported', $this->shown());
        add_filter('wp_redirect', $stop = static fn (string $address) => throw new \RuntimeException($address));
        $_POST['pmp_action'] = 'backfill';
        $_REQUEST['_wpnonce'] = wp_create_nonce('pmp_analytics_act');

        try {
            $this->page->act();
            self::fail('it goes back to the page');
        } catch (\RuntimeException $redirected) {
            self::assertStringEndsWith('pmp_notice=backfill', $redirected->getMessage());
        } finally {
            remove_filter('wp_redirect', $stop);
            unset($_POST['pmp_action'], $_REQUEST['_wpnonce']);
        }

        self::assertStringContainsString('0 imported so far', $this->shown());
        $this->backfill->go_on();
        self::assertStringContainsString('all imported: 0', $this->shown());
    }

    public function test_only_administrators_act(): void
    {
        wp_set_current_user($this->customer());
        add_filter('wp_die_handler', $handler = static fn (): callable => static fn (string $text) => throw new \RuntimeException($text));

        self::assertSame('', $this->shown());
        try {
            $this->page->act();
            self::fail('a customer acted');
        } catch (\RuntimeException $refused) {
            self::assertSame('Sorry, you are not allowed to do this.', $refused->getMessage());
        } finally {
            remove_filter('wp_die_handler', $handler);
        }
    }

    public function test_a_link_from_elsewhere_does_nothing(): void
    {
        add_filter('wp_die_handler', $handler = static fn (): callable => static fn () => throw new \RuntimeException('refused'));
        $_POST['pmp_action'] = 'requeue';
        $_REQUEST['_wpnonce'] = 'forged';

        $this->expectExceptionMessage('refused');
        try {
            $this->page->act();
        } finally {
            remove_filter('wp_die_handler', $handler);
            unset($_POST['pmp_action'], $_REQUEST['_wpnonce']);
        }
    }

    public function test_site_health_says_that_deliveries_stopped_and_why(): void
    {
        $health = new SiteHealth(new PMP_Config(), $this->queue, new Pause($this->clock));
        $tests = apply_filters('site_status_tests', ['direct' => [], 'async' => []]);
        self::assertArrayHasKey('pmp_analytics', $tests['direct']);
        self::assertSame('good', $health->test()['status']);

        $this->add_events(['bad']);
        $this->drain();
        self::assertSame('recommended', $health->test()['status']);

        $this->add_events(['a']);
        $this->mesh->mood = 'down';
        $this->drain();
        $this->clock->move(2 * 3600);
        self::assertSame('critical', $health->test()['status']);
        self::assertSame('<p>1 messages are waiting, the oldest for 2 hours. Connection refused</p>', $health->test()['description']);
    }

    /**
     * @return list<string>
     */
    private function found(): array
    {
        return array_map(static fn (Finding $each): string => "{$each->kind} {$each->text}", $this->connection->check());
    }

    private function shown(): string
    {
        $this->page->add_settings();
        $GLOBALS['title'] = 'PMP Analytics';
        ob_start();
        $this->page->show();
        return (string) ob_get_clean();
    }
}
